// Types of callbox-client, generated from sdk/js/src.
/** What was refused or went wrong; `code` is one of the protocol's error codes, or one of the library's own. */
export declare class CallboxError extends Error {
    readonly name = "CallboxError";
    /**
     * A code of the protocol (`bad-password`, `room-full`, …), or of the library (`closed`, `timeout`, `aborted`, …). A server that
     * is newer than this library may have further ones.
     */
    readonly code: ErrorCode | LibraryCode | (string & {});
    /** Milliseconds after which another attempt makes sense, where the server named them. */
    readonly retryAfter: number | undefined;
    constructor(code: string, message?: string, retryAfter?: number);
}
/** Marks a promise as handled: who awaits it still gets the error, and who does not causes no unhandled rejection. */
declare function quiet<T>(promise: Promise<T>): Promise<T>;
/** Reports what an application's listener threw, as the browser does for its own events. */
declare function report(error: unknown): void;
/** Event names and what their listeners get. */
type EventMap = Record<string, unknown[]>;
/** A listener of one event. */
type Listener<A extends unknown[]> = (...args: A) => unknown;
/** Calls every listener; one that throws, or whose promise rejects, is reported and harms no other. */
declare class Listeners {
    #private;
    add(event: string, listener: Listener<never[]>): void;
    remove(event: string, listener: Listener<never[]>): void;
    /** False where nobody listens. */
    emit(event: string, args: unknown[]): boolean;
    /** Calls one listener for what was before it, for as long as it is there; what is left of `past` then is not taken. */
    catchUp(event: string, listener: Listener<never[]>, past: Iterable<unknown[]>): void;
}
/** An object with events; `on`, `once` and `off` return it, so that calls chain. */
declare class Emitter<E extends {
    [K in keyof E]: unknown[];
}> {
    #private;
    /** Calls `listener` at each `event`. */
    on<K extends keyof E & string>(event: K, listener: Listener<E[K]>): this;
    /** Calls `listener` at the next `event` only. */
    once<K extends keyof E & string>(event: K, listener: Listener<E[K]>): this;
    /** Stops calling `listener`. */
    off<K extends keyof E & string>(event: K, listener: Listener<E[K]>): this;
}
/** Events that reached nobody, in their order. */
declare class EarlyEvents {
    #private;
    keep(event: string, ...args: unknown[]): void;
    /** Takes them out, one after the other, for as long as somebody asks. */
    take(event: string, which?: (args: unknown[]) => boolean): Generator<unknown[]>;
    drop(event: string, which: (args: unknown[]) => boolean): void;
}
/** The protocol's error codes. */
export type ErrorCode = 'invalid-json' | 'invalid-message' | 'unknown-type' | 'too-large' | 'rate-limited' | 'unauthorized' | 'token-expired' | 'forbidden' | 'not-in-room' | 'room-full' | 'room-locked' | 'bad-password' | 'no-such-peer' | 'no-such-room' | 'no-such-call' | 'identity-taken' | 'resume-failed' | 'no-relay' | 'draining' | 'internal';
/** The codes of errors that the library finds by itself; `token`: the application's token function failed. */
export type LibraryCode = 'closed' | 'timeout' | 'aborted' | 'token' | 'backpressure' | 'unsupported' | 'file' | 'rejected';
/** ICE servers and credentials, as the server hands them out. */
export interface IceConfig {
    iceServers: RTCIceServer[];
    iceTransportPolicy: RTCIceTransportPolicy;
    /** Seconds that the credentials are valid from when they were made. */
    ttl: number;
    /** Unix seconds at which the credentials expire. */
    expiresAt: number;
}
/** A JSON object. */
export type Json = Record<string, unknown>;
/** What a room allows a peer: a `host` runs the room, a `member` takes part, a `viewer` only receives. */
export type Role = 'host' | 'member' | 'viewer';
/** A peer as the server describes it. */
export interface PeerInfo {
    peerId: string;
    identity: string;
    role: Role;
    state: Json;
    metadata: Json | null;
    joinedAt: number;
    connection: 'online' | 'away';
    dialect?: string;
}
/** A room as the server describes it. */
export interface RoomInfo {
    roomId: string;
    locked: boolean;
    maxPeers: number;
    hasPassword: boolean;
    metadata: Json | null;
    relayOnly: boolean;
    createdAt: number;
    /** How many are in it, in the answer to `rooms`. */
    peers?: number;
}
/** Settings of a room that does not exist yet. */
export interface CreateRoom {
    maxPeers?: number;
    password?: string;
    metadata?: Json;
    locked?: boolean;
    relayOnly?: boolean;
}
/** The fields of `join`. */
export interface JoinFields {
    roomId: string;
    identity?: string;
    token?: TokenSource;
    password?: string;
    metadata?: Json;
    create?: CreateRoom;
}
/** The fields of `register`. */
export interface RegisterFields {
    identity?: string;
    token?: TokenSource;
}
/** A token, or a function that is asked for one each time one is needed. */
export type TokenSource = string | null | undefined | (() => string | null | undefined | Promise<string | null | undefined>);
/** Any frame of the server. */
export interface Frame {
    type: string;
    id?: string;
    seq?: number;
    [field: string]: unknown;
}
/** What the server adds to everything that it relays. */
export interface Relayed extends Frame {
    from: string;
    fromIdentity: string;
    ts: number;
    roomId?: string;
    callId?: string;
}
/** The answer to a `join` or `register`. */
export interface Entered extends Frame, IceConfig {
    peerId: string;
    identity: string;
    resumeToken: string;
    resumeWindow: number;
}
/** The answer to a `join`. */
export interface Joined extends Entered {
    roomId: string;
    role: Role;
    peers: PeerInfo[];
    room: RoomInfo;
    /** The list of peers comes in parts; `Signal` passes it on when it is whole. */
    more?: boolean;
}
/** The answer to a `resume`: of a room, or of a registration. */
export interface Resumed extends Entered {
    roomId?: string;
    role?: Role;
    peers?: PeerInfo[];
    room?: RoomInfo;
    replayed: number;
    gap: boolean;
    more?: boolean;
}
/** Why a peer is gone. */
export type LeaveReason = 'left' | 'disconnected' | 'kicked' | 'replaced' | 'timeout' | 'room-closed' | 'draining';
/** The state of a `Signal`. */
export type SignalStatus = 'idle' | 'connecting' | 'online' | 'reconnecting' | 'closed';
/** Why and how a `Signal` ended. */
export interface Closed {
    /** The WebSocket's close code; 1000 where the application closed. */
    code: number;
    /** `left` after `leave()`; otherwise `unauthorized`, `kicked`, `replaced`, `room-closed`, an error code, or what the server gave. */
    reason: string;
}
/** The frames of the server by type, each with its fields. */
export interface Frames {
    welcome: Frame & {
        peerId: string;
        protocol: number;
        heartbeat: number;
        serverTime: number;
    };
    registered: Entered;
    joined: Joined;
    resumed: Resumed;
    left: Frame;
    ack: Frame & Partial<IceConfig>;
    pong: Frame & {
        t?: unknown;
    };
    error: Frame & {
        code: ErrorCode;
        message: string;
        retryAfter?: number;
    };
    calling: Frame & {
        callId: string;
    };
    invited: Frame & {
        token?: string;
        url: string;
        expiresAt?: number;
    };
    peers: Frame & {
        peers: PeerInfo[];
        more?: boolean;
    };
    rooms: Frame & {
        rooms: RoomInfo[];
        truncated?: boolean;
        partial?: string[];
    };
    'ice-servers': Frame & IceConfig;
    offer: Relayed & {
        sdp: unknown;
    };
    answer: Relayed & {
        sdp: unknown;
    };
    candidate: Relayed & {
        candidate: unknown;
    };
    message: Relayed & {
        content: unknown;
    };
    publish: Relayed & {
        tracks: unknown;
    };
    subscribe: Relayed & {
        tracks: unknown;
    };
    call: Relayed & {
        callId: string;
        metadata?: Json | null;
    };
    accept: Relayed & {
        callId: string;
        metadata?: Json | null;
    };
    reject: Relayed & {
        callId: string;
        reason?: string;
        metadata?: Json | null;
    };
    hangup: Frame & {
        callId?: string;
        roomId?: string;
        from?: string;
        fromIdentity?: string;
        reason?: string;
        ts?: number;
    };
    mute: Relayed & {
        kind: string;
        to?: string;
    };
    unmute: Relayed & {
        kind: string;
        to?: string;
    };
    'peer-joined': Frame & {
        peer: PeerInfo;
        peerId: string;
        identity: string;
    };
    'peer-left': Frame & {
        peerId: string;
        identity: string;
        reason: LeaveReason;
    };
    'peer-state': Frame & {
        peerId: string;
        identity: string;
        role?: Role;
        state: Json;
        connection: 'online' | 'away';
    };
    'room-updated': Frame & {
        room: RoomInfo;
    };
    notify: Frame & {
        content: unknown;
    };
    kicked: Frame & {
        reason?: string;
    };
    draining: Frame & {
        reconnectIn: number;
    };
}
/** The frames that a `Signal` passes on, by type, and its own events. */
export type SignalEvents = {
    [T in keyof Frames]: [frame: Frames[T]];
} & {
    status: [status: SignalStatus];
    ice: [ice: IceConfig];
    closed: [closed: Closed];
    /** Every frame, whatever its type. */
    frame: [frame: Frame];
};
/**
 * One connection to the server that carries text frames: a WebSocket, or HTTP requests where WebSockets do not pass.
 * A transport reports its end once and is then of no more use.
 */
interface Transport {
    onframe: (text: string) => void;
    onclose: (code: number, reason: string) => void;
    send(text: string): void;
    /** Lets go at once and reports nothing more. */
    close(): void;
}
/** The part of the browser's `WebSocket` that is used; the packages `ws` and `undici` have it too. */
export interface WebSocketLike {
    readyState: number;
    onmessage: ((event: {
        data: unknown;
    }) => void) | null;
    onclose: ((event: {
        code: number;
        reason: string;
    }) => void) | null;
    onerror: ((event: unknown) => void) | null;
    send(text: string): void;
    close(code?: number): void;
}
/** Makes a WebSocket: the browser's, or that of a package. */
export type WebSocketConstructor = new (url: string) => WebSocketLike;
/** Frames over a WebSocket. */
declare class SocketTransport implements Transport {
    #private;
    onframe: (_: string) => void;
    onclose: (_: number, __: string) => void;
    constructor(url: string, Socket: WebSocketConstructor);
    send(text: string): void;
    close(): void;
}
/** Frames over HTTP: down by Server-Sent Events or, where those do not come through, by long polling; up by POST. */
declare class HttpTransport implements Transport {
    #private;
    onframe: (_: string) => void;
    onclose: (_: number, __: string) => void;
    constructor(url: string, fetcher: typeof fetch);
    send(text: string): void;
    close(): void;
}
/** Milliseconds: how long a connection may take to greet, and a silent one to answer. */
declare const WELCOME_WITHIN = 6000;
/** The longest wait between attempts while a call depends on the connection: relayed media waits for it. */
declare const ATTENTIVE_RETRY = 2500;
/** Settings of a `Signal`. */
export interface SignalOptions {
    /** Used where `join` and `register` bring none. A function is asked again whenever a token is needed. */
    token?: TokenSource;
    /** For runtimes without a `WebSocket` of their own, as Node before 22: that of the package `ws`. */
    WebSocket?: WebSocketConstructor;
    fetch?: typeof fetch;
    /** `auto` uses a WebSocket and falls back to HTTP where none opens. */
    transport?: 'auto' | 'websocket' | 'http';
}
/** Settings of one request. */
export interface RequestOptions {
    /** Milliseconds until the request fails with `timeout`; 0 waits for ever. 30 s, and 60 s for `join` and `register`, by default. */
    timeout?: number;
    /** Gives the request up; it then fails with `aborted`. */
    signal?: AbortSignal;
    /** Where the server answers `rate-limited`, waits as long as it says and asks again, in the order of all such requests. */
    patient?: boolean;
}
/**
 * A session with a callbox: requests with answers, events, and the same session again after a lost connection. It knows
 * nothing of media or pages, and runs in browsers, workers, Node, Deno and Bun.
 *
 * ```ts
 * const signal = new Signal('wss://box.example/ws');
 * signal.on('message', ({ from, content }) => console.log(from, content));
 * await signal.join({ roomId: 'demo', identity: 'Ann' });
 * await signal.request('message', { content: { text: 'hello' } });
 * ```
 */
export declare class Signal {
    #private;
    /** Own peer id; constant across resumed connections. */
    peerId: string | null;
    /** The newest ICE servers and credentials. */
    ice: IceConfig | null;
    /** `idle`, `connecting`, `online`, `reconnecting` or `closed`. */
    status: SignalStatus;
    /** @param url The server's WebSocket address; by default `ws` beside the page. */
    constructor(url?: string | URL, options?: SignalOptions);
    /** Listens to a frame type of the server, or to `status`, `ice`, `closed` or `frame`; returns a function that stops. */
    on<K extends keyof SignalEvents>(type: K, listener: Listener<SignalEvents[K]>): () => void;
    /** Listens to the next event of that type only; returns a function that stops. */
    once<K extends keyof SignalEvents>(type: K, listener: Listener<SignalEvents[K]>): () => void;
    /** Stops calling `listener`. */
    off<K extends keyof SignalEvents>(type: K, listener: Listener<SignalEvents[K]>): void;
    /** Joins a room. A refused second `join` leaves the first session as it was. */
    join(fields: JoinFields, options?: RequestOptions): Promise<Joined>;
    /** Takes a name without a room, to call and be called. */
    register(fields?: RegisterFields, options?: RequestOptions): Promise<Entered>;
    /** Sends one message and resolves to its answer; rejects with a `CallboxError`. Survives a reconnection. */
    request(type: string, fields?: Json, options?: RequestOptions): Promise<Frame>;
    /** Leaves and closes at once, so that it also works while a page goes away. */
    leave(): void;
    /** Asks at once whether the connection still lives, or tries at once to get it back. `within`: milliseconds for the answer. */
    probe(within?: number): void;
    /** True while calls depend on this session: a silent connection is then found within five seconds. */
    get attentive(): boolean;
    set attentive(on: boolean);
}
export {};

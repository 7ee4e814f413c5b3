// Types of callbox-client, generated from sdk/js/src.
export as namespace callbox;
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
/** How media travels: `direct`, `direct-nat` (through at least one NAT), `relay-udp`, `relay-tcp`, `relay-tls` (this side's leg to the relay), or `relay-remote` (only the peer is relayed). */
export type PathKind = 'direct' | 'direct-nat' | 'relay-udp' | 'relay-tcp' | 'relay-tls' | 'relay-remote';
/** The path to a peer, as it was measured last. */
export interface Path {
    kind: PathKind;
    /** What carries this side's packets, to the relay or to the peer; empty where the browser does not say. */
    transport: 'udp' | 'tcp' | 'tls' | '';
    /** Round-trip time in milliseconds, or null while it is unknown. */
    rtt: number | null;
    /** The part of the peer's packets that did not arrive since the measurement before, from 0 to 1; null without media. */
    loss: number | null;
    /** Bits a second sent and received since the measurement before. */
    up: number;
    down: number;
}
type Stats = Record<string, any>;
/** Reads the selected candidate pair out of a statistics report; null while there is none. */
export declare function selectedPair(report: RTCStatsReport): {
    pair: Stats;
    local: Stats;
    remote: Stats;
} | null;
/** Names the path of a pair in one word. */
export declare function kindOf(local: Stats, remote: Stats): PathKind;
/** Turns two reports of one connection into figures. */
declare class PathMeter {
    #private;
    measure(report: RTCStatsReport): Path | null;
}
/** One track to send. A slot keeps its place in the session while its track comes, goes and changes. */
export interface Outgoing {
    /** Names the slot; constant while it is published. */
    key: string;
    kind: 'audio' | 'video';
    track: MediaStreamTrack | null;
    /** The stream that the peer sees the track in. */
    stream: MediaStream;
    /** Bits a second; video without it shares the room's budget. */
    maxBitrate?: number | undefined;
    /** Preferred codecs, as `video/VP9`, best first. */
    codecs?: readonly string[] | undefined;
}
/** Settings of a `Link`. */
export interface LinkOptions {
    /** The polite side yields where two offers cross. */
    polite: boolean;
    /** Whether this side makes the first offer. */
    offers: boolean;
    config: RTCConfiguration;
    /** Carries a description or candidate to the peer. */
    send(type: 'offer' | 'answer' | 'candidate', fields: Json): void;
    /** What is sent from the beginning: it is in the first offer. */
    outgoing?: readonly Outgoing[];
    /** Kinds that the first offer makes room for though nothing is sent. */
    receive?: readonly ('audio' | 'video')[];
    /** True where the peer opens the control channel too. */
    control?: boolean;
    /** Sees each sender and receiver before its first frame. */
    prepare?: (end: RTCRtpSender | RTCRtpReceiver, kind: string) => void;
    /** Opens a data channel by `create`, in its own way. */
    open?: (create: (init?: RTCDataChannelInit) => RTCDataChannel, init?: RTCDataChannelInit) => RTCDataChannel;
}
/** Events of a `Link`. */
export interface LinkEvents {
    state: [state: RTCPeerConnectionState];
    /** A track came; `key` is the id of the peer's stream, or empty. */
    track: [track: MediaStreamTrack, key: string];
    trackend: [track: MediaStreamTrack, key: string];
    /** The connection was made anew: earlier tracks and channels are gone. */
    reset: [];
    channel: [channel: RTCDataChannel];
    /** The peer's end closed in order; `said` where the peer said so itself, and does not begin anew. */
    bye: [said: boolean];
    /** A request over the control channel. */
    control: [message: Json];
}
/**
 * One peer connection: perfect negotiation, trickle, ICE restarts, tracks that come and go, and the path in words. It
 * knows nothing of rooms or of how signaling travels.
 */
export declare class Link extends Emitter<LinkEvents> {
    #private;
    /** Questions over the connection without an answer, since the last answer. */
    missed: number;
    /** Milliseconds from the first step to `connected`; null before. */
    connectMs: number | null;
    constructor(options: LinkOptions);
    /** The connection below; it may be replaced by another one. */
    get pc(): RTCPeerConnection;
    /** `new`, `connecting`, `connected`, `disconnected`, `failed` or `closed`. */
    get state(): RTCPeerConnectionState;
    set polite(polite: boolean);
    /** Takes an `offer`, `answer` or `candidate` of the peer; they are handled one after the other. */
    receive(message: {
        type: string;
        sdp?: unknown;
        candidate?: unknown;
    }): void;
    /** Sends these tracks from now on; resolves when each is on its way, or waits for the negotiation that is due. */
    publish(outgoing: readonly Outgoing[]): Promise<void>;
    /** Uses new ICE servers or another policy from the next gathering on. */
    configure(config: RTCConfiguration): void;
    /** Looks for a new path. One that works is kept meanwhile. */
    restart(): void;
    /** Sends again what may have been lost while the peer was out of reach. */
    resend(): void;
    /** Connects anew from nothing: a path that works survives every restart, even against a new policy. */
    reset(): void;
    /** Makes the first offer, though the peer was to make it. */
    start(): void;
    /**
     * Asks the peer over the connection itself; without a control channel the browser's own view counts. `doubted` is called
     * before the answer is given up.
     */
    alive(doubted?: () => void): Promise<boolean>;
    /** Says something over the control channel; false where there is none. */
    say(message: Json): boolean;
    /** Measures the path; null while there is none. */
    path(): Promise<Path | null>;
    /** Opens a data channel to the peer. */
    openChannel(label: string, init?: RTCDataChannelInit): RTCDataChannel;
    /** Shares a budget for video among `links`. */
    shareBudget(budget: number, links: number): Promise<void>;
    close(): void;
}
/**
 * Lets the browser load what its first connection needs, once: codecs, threads, the network's interfaces. `join` and `register` do
 * it while they wait for the server; a lobby may do it before, so that nobody waits for it after the click.
 */
export declare function warmUp(): void;
/** How a stream is published. */
export interface PublishOptions {
    /** What the stream is: `camera` (the default), `screen`, or a word of the application. */
    label?: string;
    /** Bits a second for each of its tracks; without it video shares `videoBudget`. */
    maxBitrate?: number;
    /** What the encoder spares first: `motion` for films, `detail` or `text` for screens. */
    contentHint?: string;
    /** Preferred codecs, as `video/VP9`, best first. */
    codecs?: readonly string[];
}
/** A stream that is being sent to everybody. */
export declare class Publication {
    #private;
    /** The stream, as it was given. */
    readonly stream: MediaStream;
    readonly label: string;
    /** Sends another track of that kind in place of the present one, or none; nothing is negotiated again. */
    replace(kind: 'audio' | 'video', track: MediaStreamTrack | null): Promise<void>;
    /** Stops sending. The tracks themselves go on: they are the application's. */
    unpublish(): Promise<void>;
}
/**
 * The tracks for a peer. One that knows nothing of this library has room for one picture, so a shared screen takes the
 * camera's place there.
 */
declare function outgoingFor(publications: Iterable<Publication>, several: boolean): Outgoing[];
/** Events of a `Peer`. */
export interface PeerEvents {
    /** A stream came; `label` is `camera`, `screen`, or what the peer called it. A new listener gets the streams that are there. */
    stream: [stream: MediaStream, label: string];
    /** A stream has no tracks any more. */
    streamend: [stream: MediaStream];
    /** A track came into one of the streams. */
    track: [track: MediaStreamTrack, stream: MediaStream];
    /** The path was measured; every two seconds while connected. */
    path: [path: Path];
    /** `state`, `role` or `connection` changed. */
    state: [peer: Peer];
    /** The peer connection changed: `new`, `connecting`, `connected`, `disconnected`, `failed`, `closed`. */
    status: [status: RTCPeerConnectionState];
    /** A message from this peer. What came before anybody listened, here or at the room, comes to the first listener. */
    message: [content: unknown];
    /** Whether what this peer sends could be decrypted changed. */
    encrypted: [encrypted: boolean];
}
/** Somebody else in the room. The object stays the same while the person stays, whatever happens to the connections. */
export declare class Peer extends Emitter<PeerEvents> {
    #private;
    /** Names this peer in `room.peers` for as long as it is there. */
    readonly id: string;
    /** The peer id of the present session; another one after the peer had to join again. */
    peerId: string;
    identity: string;
    role: Role;
    /** What the peer said about itself by `state`. */
    state: Json;
    metadata: Json | null;
    joinedAt: number;
    /** `away` while its connection is lost; `lost` when its session is gone too and only its media still flows. */
    connection: 'online' | 'away' | 'lost';
    dialect: string | undefined;
    /** The streams that the peer sends, by the id that the peer gave them. */
    readonly streams: Map<string, MediaStream>;
    /** The path as it was measured last. */
    path: Path | null;
    /** True while what the peer sends is end-to-end encrypted and could be decrypted. */
    encrypted: boolean;
    /** The peer connection's keeper; null for a viewer that is with viewers, and without media. */
    link: Link | null;
    /** The peer's name; empty where it gave none. */
    get name(): string;
    /** The first stream that is not a shared screen. */
    get stream(): MediaStream | undefined;
    /** The state of the peer connection. */
    get status(): RTCPeerConnectionState;
    /** True where the peer uses this library too. */
    get sameLibrary(): boolean;
    /** What the peer calls a stream of its own. */
    labelOf(stream: MediaStream | string): string;
}
/** The random name of a peer's library object, by which it is recognised after it had to join again. */
declare function instanceOf(metadata: Json | null | undefined): string | null;
/** What a channel carries: JSON values, or bytes. */
export type ChannelData = unknown | ArrayBuffer | ArrayBufferView<ArrayBuffer>;
type Raw = string | ArrayBuffer | ArrayBufferView<ArrayBuffer>;
/** Writes into a data channel no faster than it takes; never more than 1 MiB waits. */
declare class Pipe {
    #private;
    /** Uses this channel from now on. */
    attach(channel: RTCDataChannel): void;
    /** The channel is gone; a browser may still call it open for a moment, and takes what nobody gets. */
    detach(): void;
    get channel(): RTCDataChannel | null;
    /** Resolves when the browser has taken the data; rejects with `backpressure` where too much waits already. */
    write(data: Raw): Promise<void>;
    /** Hands over what is of no use late, or drops it. */
    writeNow(data: Raw): void;
    /** Fails what waits. */
    fail(error: CallboxError): void;
}
/** How a channel carries its messages. */
export interface ChannelOptions {
    /** False for what is of no use late, as cursor positions: nothing is sent twice, order is not kept, and what cannot go at once is dropped. */
    reliable?: boolean;
}
/** Events of a `Channel`. */
export interface ChannelEvents {
    /** What came before anybody listened comes to the first listener. */
    message: [data: any, peer: Peer];
    /** Data can pass to that peer. A new listener gets the peers that it can pass to already. */
    open: [peer: Peer];
    close: [peer: Peer];
}
/** Data between peers, directly and by name: everybody who opens a channel of one name is on it. */
export declare class Channel extends Emitter<ChannelEvents> {
    #private;
    readonly name: string;
    /**
     * Sends to everybody, or to one peer. Resolves when it was handed over to each who is connected; wait for that before
     * sending more of what is large. Who is not connected yet gets it later; one peer alone is waited for, half a minute at most.
     * On a channel that is not reliable it goes to those that it can go to at once.
     */
    send(data: ChannelData, to?: Peer): Promise<void>;
    /** True while data passes to that peer. */
    isOpen(peer: Peer): boolean;
}
/** The label of the data channels that carry files; the rest of the offer is in the channel's `protocol`. */
declare const FILE_LABEL = "callbox.file";
/** The state of a transfer. */
export type FileStatus = 'offered' | 'flowing' | 'paused' | 'waiting' | 'done' | 'failed';
/** Events of a transfer. */
export interface FileEvents {
    /** Bytes so far, and in all. */
    progress: [bytes: number, size: number];
    /** `waiting` is a lost connection: the transfer goes on when the peer is back. */
    status: [status: FileStatus];
}
interface Offer {
    id: string;
    name: string;
    size: number;
    mime: string;
}
/** A file on its way, in either direction. */
declare abstract class FileTransfer extends Emitter<FileEvents> {
    #private;
    readonly id: string;
    readonly name: string;
    readonly size: number;
    /** The file's media type. */
    readonly mime: string;
    readonly peer: Peer;
    /** Bytes that passed. */
    bytes: number;
    status: FileStatus;
    protected channel: RTCDataChannel | null;
    /** Whether a person paused it, on either side; a cut and a slow disk change nothing about that. */
    protected stopped: boolean;
    protected settle: {
        resolve(value: any): void;
        reject(error: unknown): void;
    };
    protected constructor(peer: Peer, { id, name, size, mime }: Offer);
    /** Stops until `resume()`; either side may do both, and a lost connection changes nothing about it. */
    pause(): void;
    /** Goes on after `pause()`. */
    resume(): void;
    /** Nobody holds it up any more. */
    protected abstract goOn(): void;
    /** Gives the transfer up on both sides. */
    cancel(): void;
    protected attach(channel: RTCDataChannel): void;
    protected detach(): void;
    /** The peer closed the channel, or its page is gone. */
    protected closed(): void;
    protected cut(): void;
    protected say(message: Json): void;
    protected advance(bytes: number): void;
    protected setStatus(status: FileStatus): void;
    protected took(_: Uint8Array<ArrayBuffer>): void;
    protected abstract answered(message: Json): void;
}
/** A file that this side sends. */
export declare class OutgoingFile extends FileTransfer {
    #private;
    /** Resolves when the peer has the whole file and its SHA-256 is right. */
    readonly done: Promise<void>;
    protected answered(message: Json): void;
    protected goOn(): void;
    /** A peer that closes the channel again and again has answered. */
    protected closed(): void;
    protected cut(): void;
}
/** A file that a peer offers. */
export declare class IncomingFile extends FileTransfer {
    #private;
    /** Resolves to the file, or to an empty one where it was written to `sink`. */
    readonly done: Promise<File>;
    /** Takes the file; into `sink` where one is given, as from `showSaveFilePicker()`, else into memory and disk of the browser. */
    accept(sink?: WritableStream<Uint8Array<ArrayBuffer>>): Promise<File>;
    /** Declines the file. */
    reject(): void;
    protected goOn(): void;
    protected took(chunk: Uint8Array<ArrayBuffer>): void;
    protected answered(message: Json): void;
    fail(code: string, text: string): void;
}
/** The files of a room. */
declare class FileDesk {
    #private;
    constructor(offered: (file: IncomingFile, peer: Peer) => void);
    send(peer: Peer, file: Blob, name?: string): OutgoingFile;
    take(peer: Peer, channel: RTCDataChannel): void;
    /** Offers that nobody answered yet. */
    offers(): [file: IncomingFile, peer: Peer][];
    /** The peer's connection changed. */
    wake(peer: Peer): void;
    /** The peer's connection was made anew, and the channels with it. */
    reset(peer: Peer): void;
    /** The peer is gone. */
    lose(peer: Peer): void;
}
/** How to record. */
export interface RecordOptions {
    /** This track alone, as it is sent, in place of everybody mixed; the recording ends with it. */
    track?: MediaStreamTrack;
    /** False records sound only. */
    video?: boolean;
    width?: number;
    height?: number;
    frameRate?: number;
    mimeType?: string;
    videoBitsPerSecond?: number;
    audioBitsPerSecond?: number;
    /** Where the pieces go as they come, as from `showSaveFilePicker()`; without it they are kept as a `Blob`. */
    sink?: WritableStream<Blob>;
}
/** Events of a `Recording`. */
export interface RecordingEvents {
    /** Bytes so far, and milliseconds. */
    progress: [bytes: number, ms: number];
    status: [status: 'recording' | 'paused' | 'stopped'];
    error: [error: unknown];
}
/** A source of a recording: the streams that are to be in it now. */
export type Sources = () => Iterable<MediaStream>;
/** One file of everybody, their sound mixed, their pictures side by side; or of one track. */
export declare class Recording extends Emitter<RecordingEvents> {
    #private;
    bytes: number;
    constructor(sources: Sources, options?: RecordOptions);
    /** `recording`, `paused` or `stopped`. */
    get status(): 'recording' | 'paused' | 'stopped';
    /** The file's media type. */
    get mimeType(): string;
    /** Milliseconds that were recorded. */
    get ms(): number;
    pause(): void;
    resume(): void;
    /** Ends the recording; resolves to the file, which is empty where it went to a sink. Rejects where the sink took not all of it. */
    stop(): Promise<Blob>;
}
/** A key that everybody in the call knows, and the server does not. */
export interface EncryptionOptions {
    /** At least 16 random bytes. */
    key?: BufferSource;
    /** Words that people agreed on; the key is made of them and the room's name. */
    passphrase?: string;
    /** Where the worker is served, for pages whose content security policy forbids `blob:` workers. */
    worker?: string | URL;
}
/**
 * End-to-end encryption of one room: media frames in a worker, messages and data channels here. What is sealed here is bound to
 * the room and to who sent it, and opened once: who has no key can neither repeat it nor pass it off as its own.
 */
declare class Encryption {
    #private;
    /** Frames of other codecs cannot be cut into packets once they are sealed. */
    readonly codecs: string[];
}
/** Milliseconds between two questions over each connection. */
declare const WATCH_EVERY = 700;
/** What keeps a connection going is worth a wait where many negotiate at once. */
declare const PATIENT: RequestOptions;
/** How to join a room. */
export interface JoinOptions extends Omit<SignalOptions, 'token'> {
    /** The room's name. */
    room: string;
    /** The name that others see. A token's `sub` takes its place. */
    name?: string;
    /** A token, or a function that is asked for one whenever one is needed. */
    token?: TokenSource;
    password?: string;
    /** An object that the others get with this peer; `callbox` in it belongs to the library. */
    metadata?: Json;
    /** Settings of the room, if it does not exist yet. */
    create?: CreateRoom;
    /** Streams to publish with the first offer, which saves a round trip. */
    streams?: readonly MediaStream[];
    /** True forces every path through the relay, so that nobody learns this side's address. */
    relayOnly?: boolean;
    /** False makes no peer connections: messages and state only. */
    mesh?: boolean;
    /** False makes no room for media in the first offer: data only, until somebody publishes. */
    media?: boolean;
    /** Encrypts media and messages end to end; needs a browser with `RTCRtpScriptTransform`. */
    encryption?: EncryptionOptions;
    /** Bits a second for all video that is sent. */
    videoBudget?: number;
    /** Extra settings of every peer connection. */
    rtcConfig?: RTCConfiguration;
    /** Milliseconds in which the first join must succeed; 0 waits for ever. 60 s by default. */
    timeout?: number;
    signal?: AbortSignal;
}
/** The state of a `Room`. */
export type RoomStatus = 'connecting' | 'online' | 'reconnecting' | 'closed';
/** Events of a `Room`. */
export interface RoomEvents {
    /** `online`, `reconnecting`, or `closed` with the reason: `left`, `kicked`, `replaced`, `room-closed`, or an error code. A listener that comes after the end gets `closed`. */
    status: [status: RoomStatus, reason?: string];
    /** Somebody came. */
    peer: [peer: Peer];
    /** Somebody is gone. */
    leave: [peer: Peer, reason: LeaveReason];
    /** A message from a peer to the room or to this side. What came before anybody listened comes to the first listener. */
    message: [content: any, peer: Peer];
    /** A peer's `state`, `role` or `connection` changed. */
    state: [peer: Peer];
    /** The room's settings changed. */
    room: [room: RoomInfo];
    /** This side's role changed. */
    role: [role: Role];
    /** A host asks this side to mute or unmute `audio`, `video` or `screen`. The last word before anybody listened comes to the first listener. */
    mute: [kind: string, peer: Peer | undefined];
    unmute: [kind: string, peer: Peer | undefined];
    /** The operator says something. What came before anybody listened comes to the first listener. */
    notify: [content: unknown];
    /** The server restarts; the call goes on. */
    draining: [reconnectIn: number];
    /** A host removed this side. */
    kicked: [reason: string | undefined];
    /** Fresh ICE servers, or another policy. */
    ice: [ice: IceConfig];
    /** A peer opened a channel that this side had not opened. A new listener gets those that this side has not asked for yet. */
    channel: [channel: Channel];
    /** A peer offers a file: `accept()` or `reject()` it. A new listener gets the offers without an answer. */
    file: [file: IncomingFile, peer: Peer];
}
/** A room with everybody in it. Made by `join`. */
export declare class Room extends Emitter<RoomEvents> {
    #private;
    /** Everybody else, by `peer.id`. */
    readonly peers: Map<string, Peer>;
    /** `connecting`, `online`, `reconnecting` or `closed`. */
    status: RoomStatus;
    /** Why the room closed. */
    reason: string | undefined;
    /** The room's settings. */
    info: RoomInfo;
    /** This side's role, identity and present peer id. */
    role: Role;
    identity: string;
    /** The signaling below: for frames that this class has no method for. */
    signaling: Signal;
    /** Bits a second for all video that is sent. */
    videoBudget: number;
    /** The room's name. */
    get id(): string;
    /** This side's present peer id. */
    get peerId(): string;
    /** This side's own state, as it was set. */
    get state(): Readonly<Json>;
    /** The newest ICE servers and credentials. */
    get ice(): IceConfig | null;
    /** Everything that is being sent. */
    get publications(): readonly Publication[];
    /** True while this side sends and receives through the relay only. */
    get relayOnly(): boolean;
    /** Setting it connects to everybody anew. */
    set relayOnly(on: boolean);
    /** Sends a stream to everybody, and to everybody who comes. Published again, its present tracks are taken. */
    publish(stream: MediaStream, options?: PublishOptions): Promise<Publication>;
    /** Sends a message through the server: to everybody, or to one peer. */
    send(content: unknown, to?: Peer): Promise<void>;
    /** Says something about this side that newcomers are to know too. Keys merge, `null` deletes one. */
    setState(state: Json): Promise<void>;
    /** Opens, or returns, the data channel of that name to everybody. */
    channel(name: string, options?: ChannelOptions): Channel;
    /** Offers a file to a peer; it flows when the peer accepts. */
    sendFile(file: Blob, to: Peer, options?: {
        name?: string;
    }): OutgoingFile;
    /** Records everybody, this side included, into one file. */
    record(options?: RecordOptions): Recording;
    /** Asks a peer to mute or unmute; for hosts. */
    mute(peer: Peer, kind: 'audio' | 'video' | 'screen', muted?: boolean): Promise<void>;
    /** Removes a peer; for hosts. */
    kick(peer: Peer, reason?: string): Promise<void>;
    /** Gives a peer another role; for hosts. */
    grant(peer: Peer, role: Role): Promise<void>;
    /** Changes the room's settings; for hosts. `null` removes the password or the metadata. */
    update(settings: {
        locked?: boolean;
        maxPeers?: number;
        password?: string | null;
        metadata?: Json | null;
        relayOnly?: boolean;
    }): Promise<void>;
    /** Makes a link for a guest; for hosts. `url` is the page's link, `token` is absent on a box without tokens. */
    invite(options?: {
        ttl?: number;
        role?: Role;
        uses?: number;
    }): Promise<{
        url: string;
        token?: string;
        expiresAt?: number;
    }>;
    /** Leaves and ends all media at once; also right while a page goes away. */
    leave(): void;
    /** Comes back after the session ended for good, as with an expired token, while media may still flow. */
    rejoin(): Promise<void>;
}
/**
 * Joins a room.
 *
 * ```ts
 * const room = await join('wss://box.example/ws', { room: 'demo', name: 'Ann' });
 * await room.publish(await navigator.mediaDevices.getUserMedia({ audio: true, video: true }));
 * room.on('peer', (peer) => peer.on('stream', (stream) => show(stream)));
 * ```
 */
export declare function join(url: string | URL | undefined, options: JoinOptions): Promise<Room>;
/** 128 random bits. */
declare function randomName(): string;
/** How to register for direct calls. */
export interface RegisterOptions extends Omit<SignalOptions, 'token'> {
    /** The name under which others call. A token's `sub` takes its place. */
    identity?: string;
    token?: TokenSource;
    relayOnly?: boolean;
    rtcConfig?: RTCConfiguration;
}
/** How to call, or to accept a call. */
export interface CallOptions {
    /** The stream to send from the first moment on. */
    stream?: MediaStream;
    /** An object that the other side gets with the call, or with its acceptance. */
    metadata?: Json;
}
/** The state of a `Call`. */
export type CallStatus = 'ringing' | 'connecting' | 'connected' | 'ended';
/** Events of a `Call`. */
export interface CallEvents {
    /** A listener that comes after the end gets `ended`. */
    status: [status: CallStatus];
    /** A new listener gets the streams that are there. */
    stream: [stream: MediaStream, label: string];
    /** What came before anybody listened comes to the first listener. */
    message: [content: any];
    /** It is over: `hangup`, `rejected`, `busy`, `cancelled`, `timeout`, `answered-elsewhere`, `disconnected`, `closed`, or what the other side gave. A listener that comes after the end gets it too. */
    end: [reason: string];
}
/** Events of a `Phone`. */
export interface PhoneEvents {
    /** Somebody calls: `accept()` or `reject()`. A new listener gets the calls that ring. */
    call: [call: Call];
    /** A listener that comes after the end gets `closed`. */
    status: [status: Signal['status'], reason?: string];
}
/** A registered name: it calls, and is called, without a room. Made by `register`. */
export declare class Phone extends Emitter<PhoneEvents> {
    #private;
    readonly signaling: Signal;
    /** Calls that ring or go on, by id. */
    readonly calls: Map<string, Call>;
    identity: string;
    /** Why the name was given up. */
    reason: string | undefined;
    /** Calls an identity or a peer id. Resolves when it rings there. */
    call(to: string, options?: CallOptions): Promise<Call>;
    /** Ends every call and gives the name up. */
    close(): void;
}
/** One direct call. */
export declare class Call extends Emitter<CallEvents> {
    #private;
    id: string;
    readonly incoming: boolean;
    /** Who is called, or calls. */
    identity: string;
    /** What the other side gave with the call, or with its acceptance. */
    metadata: Json | null;
    status: CallStatus;
    /** Why it ended. */
    reason: string | undefined;
    /** The other side, once the call was accepted. */
    peer: Peer | null;
    /** Takes the call. */
    accept(options?: CallOptions): Promise<void>;
    /** Declines the call; other devices of this identity go on ringing. */
    reject(reason?: string): void;
    /** Ends the call, or withdraws it while it rings. */
    hangup(reason?: string): void;
    /** Sends a message to the other side. */
    send(content: unknown): Promise<void>;
    /** Sends another stream, or the present tracks of one that is being sent. */
    publish(stream: MediaStream, options?: PublishOptions): Promise<Publication>;
}
/** Takes a name, to call and be called without a room. */
export declare function register(url: string | URL | undefined, options: RegisterOptions): Promise<Phone>;
export {};

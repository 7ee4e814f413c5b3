/** The protocol's error codes. */
export type ErrorCode =
  | 'invalid-json' | 'invalid-message' | 'unknown-type' | 'too-large' | 'rate-limited'
  | 'unauthorized' | 'token-expired' | 'forbidden' | 'not-in-room' | 'room-full' | 'room-locked' | 'bad-password'
  | 'no-such-peer' | 'no-such-room' | 'no-such-call' | 'identity-taken' | 'resume-failed' | 'no-relay' | 'draining' | 'internal';

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
  welcome: Frame & { peerId: string; protocol: number; heartbeat: number; serverTime: number };
  registered: Entered;
  joined: Joined;
  resumed: Resumed;
  left: Frame;
  ack: Frame & Partial<IceConfig>;
  pong: Frame & { t?: unknown };
  error: Frame & { code: ErrorCode; message: string; retryAfter?: number };
  calling: Frame & { callId: string };
  invited: Frame & { token?: string; url: string; expiresAt?: number };
  peers: Frame & { peers: PeerInfo[]; more?: boolean };
  rooms: Frame & { rooms: RoomInfo[]; truncated?: boolean; partial?: string[] };
  'ice-servers': Frame & IceConfig;
  offer: Relayed & { sdp: unknown };
  answer: Relayed & { sdp: unknown };
  candidate: Relayed & { candidate: unknown };
  message: Relayed & { content: unknown };
  publish: Relayed & { tracks: unknown };
  subscribe: Relayed & { tracks: unknown };
  call: Relayed & { callId: string; metadata?: Json | null };
  accept: Relayed & { callId: string; metadata?: Json | null };
  reject: Relayed & { callId: string; reason?: string; metadata?: Json | null };
  hangup: Frame & { callId?: string; roomId?: string; from?: string; fromIdentity?: string; reason?: string; ts?: number };
  mute: Relayed & { kind: string; to?: string };
  unmute: Relayed & { kind: string; to?: string };
  'peer-joined': Frame & { peer: PeerInfo; peerId: string; identity: string };
  'peer-left': Frame & { peerId: string; identity: string; reason: LeaveReason };
  'peer-state': Frame & { peerId: string; identity: string; role?: Role; state: Json; connection: 'online' | 'away' };
  'room-updated': Frame & { room: RoomInfo };
  notify: Frame & { content: unknown };
  kicked: Frame & { reason?: string };
  draining: Frame & { reconnectIn: number };
}

/** The frames that a `Signal` passes on, by type, and its own events. */
export type SignalEvents = { [T in keyof Frames]: [frame: Frames[T]] } & {
  status: [status: SignalStatus];
  ice: [ice: IceConfig];
  closed: [closed: Closed];
  /** Every frame, whatever its type. */
  frame: [frame: Frame];
};

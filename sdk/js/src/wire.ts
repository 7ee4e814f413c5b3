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
}

/** The answer to a `resume`: of a room, or of a registration. */
export interface Resumed extends Entered {
  roomId?: string;
  role?: Role;
  peers?: PeerInfo[];
  room?: RoomInfo;
  replayed: number;
  gap: boolean;
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

/** The frames that a `Signal` passes on, by type, and its own events. */
export interface SignalEvents {
  status: [status: SignalStatus];
  ice: [ice: IceConfig];
  closed: [closed: Closed];
  welcome: [frame: Frame & { peerId: string; heartbeat: number; serverTime: number }];
  joined: [frame: Joined];
  registered: [frame: Entered];
  resumed: [frame: Resumed];
  offer: [frame: Relayed & { sdp: unknown }];
  answer: [frame: Relayed & { sdp: unknown }];
  candidate: [frame: Relayed & { candidate: unknown }];
  message: [frame: Relayed & { content: unknown }];
  publish: [frame: Relayed & { tracks: unknown }];
  subscribe: [frame: Relayed & { tracks: unknown }];
  call: [frame: Relayed & { callId: string; metadata?: Json | null }];
  accept: [frame: Relayed & { callId: string; metadata?: Json | null }];
  reject: [frame: Relayed & { callId: string; reason?: string }];
  hangup: [frame: Frame & { callId?: string; from?: string; reason?: string }];
  mute: [frame: Relayed & { kind: string }];
  unmute: [frame: Relayed & { kind: string }];
  'peer-joined': [frame: Frame & { peer: PeerInfo; peerId: string; identity: string }];
  'peer-left': [frame: Frame & { peerId: string; identity: string; reason: LeaveReason }];
  'peer-state': [frame: Frame & { peerId: string; identity: string; role?: Role; state: Json; connection: 'online' | 'away' }];
  'room-updated': [frame: Frame & { room: RoomInfo }];
  'ice-servers': [frame: Frame & IceConfig];
  notify: [frame: Frame & { content: unknown }];
  kicked: [frame: Frame & { reason?: string }];
  draining: [frame: Frame & { reconnectIn: number }];
  error: [frame: Frame & { code: string; message: string; retryAfter?: number }];
  /** Every frame, whatever its type. */
  frame: [frame: Frame];
}

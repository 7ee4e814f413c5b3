/**
 * callbox-client: calls between browsers through a callbox server.
 *
 * `join` enters a room, `register` takes a name for direct calls. Below them are `Signal`, which is signaling alone, and
 * `Link`, which is one peer connection.
 */
export { Call, Phone, register } from './calls.ts';
export type { CallEvents, CallOptions, CallStatus, PhoneEvents, RegisterOptions } from './calls.ts';
export { Channel } from './channel.ts';
export type { ChannelData, ChannelEvents, ChannelOptions } from './channel.ts';
export type { EncryptionOptions } from './encryption.ts';
export { CallboxError } from './errors.ts';
export { IncomingFile, OutgoingFile } from './files.ts';
export type { FileEvents, FileStatus } from './files.ts';
export { Link, warmUp } from './link.ts';
export type { LinkEvents, LinkOptions, Outgoing } from './link.ts';
export { kindOf, selectedPair } from './path.ts';
export type { Path, PathKind } from './path.ts';
export { Peer } from './peer.ts';
export type { PeerEvents } from './peer.ts';
export { Publication } from './publication.ts';
export type { PublishOptions } from './publication.ts';
export { Recording } from './recording.ts';
export type { RecordingEvents, RecordOptions, Sources } from './recording.ts';
export { join, Room } from './room.ts';
export type { JoinOptions, RoomEvents, RoomStatus } from './room.ts';
export { Signal } from './signal.ts';
export type { RequestOptions, SignalOptions } from './signal.ts';
export type { WebSocketConstructor, WebSocketLike } from './transport.ts';
export type * from './wire.ts';

/** The signaling alone, for workers, servers and applications with media of their own. */
export { CallboxError } from './errors.ts';
export { Signal } from './signal.ts';
export type { RequestOptions, SignalOptions } from './signal.ts';
export type { WebSocketConstructor, WebSocketLike } from './transport.ts';
export type * from './wire.ts';

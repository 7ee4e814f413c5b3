/** The signaling alone, for workers, servers and applications with media of their own. */
export { CallboxError } from './errors.ts';
export { Signal } from './signal.ts';

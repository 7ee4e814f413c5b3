import type { ErrorCode, LibraryCode } from './wire.ts';

/** What was refused or went wrong; `code` is one of the protocol's error codes, or one of the library's own. */
export class CallboxError extends Error {
  override readonly name = 'CallboxError';
  /**
   * A code of the protocol (`bad-password`, `room-full`, …), or of the library (`closed`, `timeout`, `aborted`, …). A server that
   * is newer than this library may have further ones.
   */
  readonly code: ErrorCode | LibraryCode | (string & {});
  /** Milliseconds after which another attempt makes sense, where the server named them. */
  readonly retryAfter: number | undefined;

  constructor(code: string, message?: string, retryAfter?: number) {
    super(message ?? code);
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** Marks a promise as handled: who awaits it still gets the error, and who does not causes no unhandled rejection. */
export function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/** Reports what an application's listener threw, as the browser does for its own events. */
export function report(error: unknown): void {
  if (typeof globalThis.reportError === 'function') globalThis.reportError(error);
  else console.error(error);
}

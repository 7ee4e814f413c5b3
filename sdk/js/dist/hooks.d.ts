// Types of callbox-client, generated from sdk/js/src.
/** Settings of `verifyHook`. */
export interface VerifyHookOptions {
    /** Seconds by which the time of the signature may differ from the clock of this machine; 300 by default, `Infinity` for any. */
    tolerance?: number;
    /** The time now, in milliseconds since 1970; that of this machine by default. */
    now?: number;
}
/**
 * Of `callbox-client/hooks`: whether `header`, the `Callbox-Signature` of a request, was made for `body` with `hooks.secret`,
 * and not long ago. The body is what came, bytes or text, and not JSON that was parsed and written again. Whatever the
 * header holds, the answer is true or false; only an empty secret rejects, with a `TypeError`.
 *
 * ```js
 * if (!(await verifyHook(secret, request.headers['callbox-signature'], body))) return response.writeHead(401).end();
 * ```
 */
export declare function verifyHook(secret: string | Uint8Array, header: string | readonly string[] | null | undefined, body: string | Uint8Array | ArrayBuffer, { tolerance, now }?: VerifyHookOptions): Promise<boolean>;
export {};

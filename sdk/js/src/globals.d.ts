/** The bundled worker, put in by build.mjs. */
declare const CALLBOX_WORKER: string;

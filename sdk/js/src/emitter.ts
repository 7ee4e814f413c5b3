import { report } from './errors.ts';

/** Event names and what their listeners get. */
export type EventMap = Record<string, unknown[]>;

/** A listener of one event. */
export type Listener<A extends unknown[]> = (...args: A) => unknown;

/** Calls every listener; one that throws, or whose promise rejects, is reported and harms no other. */
export class Listeners {
  #all = new Map<string, Set<Listener<never[]>>>();

  add(event: string, listener: Listener<never[]>): void {
    let set = this.#all.get(event);
    if (!set) this.#all.set(event, (set = new Set()));
    set.add(listener);
  }

  remove(event: string, listener: Listener<never[]>): void {
    this.#all.get(event)?.delete(listener);
  }

  /** False where nobody listens. */
  emit(event: string, args: unknown[]): boolean {
    const listeners = [...(this.#all.get(event) ?? [])];
    for (const listener of listeners) this.#call(listener, args);
    return listeners.length > 0;
  }

  /** Calls one listener for what was before it, for as long as it is there; what is left of `past` then is not taken. */
  catchUp(event: string, listener: Listener<never[]>, past: Iterable<unknown[]>): void {
    for (const args of past) {
      this.#call(listener, args);
      if (!this.#all.get(event)?.has(listener)) return;
    }
  }

  #call(listener: Listener<never[]>, args: unknown[]): void {
    try {
      const result = listener(...(args as never[]));
      if (result instanceof Promise) result.catch(report);
    } catch (error) {
      report(error);
    }
  }
}

/** An object with events; `on`, `once` and `off` return it, so that calls chain. */
export class Emitter<E extends { [K in keyof E]: unknown[] }> {
  #listeners = new Listeners();

  /** Calls `listener` at each `event`. */
  on<K extends keyof E & string>(event: K, listener: Listener<E[K]>): this {
    this.#listeners.add(event, listener);
    this.#listeners.catchUp(event, listener, this.past(event));
    return this;
  }

  /** Calls `listener` at the next `event` only. */
  once<K extends keyof E & string>(event: K, listener: Listener<E[K]>): this {
    const wrapped = (...args: E[K]) => {
      this.off(event, wrapped);
      return listener(...args);
    };
    return this.on(event, wrapped);
  }

  /** Stops calling `listener`. */
  off<K extends keyof E & string>(event: K, listener: Listener<E[K]>): this {
    this.#listeners.remove(event, listener);
    return this;
  }

  /** @internal What a new listener of `event` gets at once: what came before it and is still there, or reached nobody. */
  past(_event: string): Iterable<unknown[]> {
    return [];
  }

  /** @internal False where nobody listens. */
  emit<K extends keyof E & string>(event: K, ...args: E[K]): boolean {
    return this.#listeners.emit(event, args);
  }
}

/** Events of one name that are kept until somebody listens: a page may wait for its camera first. The newest stay. */
const MOST_EARLY = 64;

/** Events that reached nobody, in their order. */
export class EarlyEvents {
  #all = new Map<string, unknown[][]>();

  keep(event: string, ...args: unknown[]): void {
    const kept = this.#all.get(event) ?? [];
    this.#all.set(event, [...kept, args].slice(-MOST_EARLY));
  }

  /** Takes them out, one after the other, for as long as somebody asks. */
  *take(event: string, which: (args: unknown[]) => boolean = () => true): Generator<unknown[]> {
    for (let next; (next = this.#all.get(event)?.find(which)); ) {
      this.drop(event, (args) => args === next);
      yield next;
    }
  }

  drop(event: string, which: (args: unknown[]) => boolean): void {
    this.#all.set(event, (this.#all.get(event) ?? []).filter((args) => !which(args)));
  }
}

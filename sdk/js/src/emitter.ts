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

  emit(event: string, args: unknown[]): void {
    for (const listener of [...(this.#all.get(event) ?? [])]) {
      try {
        const result = listener(...(args as never[]));
        if (result instanceof Promise) result.catch(report);
      } catch (error) {
        report(error);
      }
    }
  }
}

/** An object with events; `on`, `once` and `off` return it, so that calls chain. */
export class Emitter<E extends { [K in keyof E]: unknown[] }> {
  #listeners = new Listeners();

  /** Calls `listener` at each `event`. */
  on<K extends keyof E & string>(event: K, listener: Listener<E[K]>): this {
    this.#listeners.add(event, listener);
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

  /** @internal */
  emit<K extends keyof E & string>(event: K, ...args: E[K]): void {
    this.#listeners.emit(event, args);
  }
}

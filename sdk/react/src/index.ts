/**
 * callbox-react: a room, its people and their tracks as React state. Thin: everything else is callbox-client's own.
 */
import { join, type JoinOptions, type Peer, type Room, type RoomStatus } from 'callbox-client';
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';

/** What `useRoom` gives. */
export interface UseRoom {
  /** The room; null until it is joined. */
  room: Room | null;
  /** `connecting`, `online`, `reconnecting` or `closed`. */
  status: RoomStatus;
  /** Why it closed: `left`, `kicked`, an error code. */
  reason: string | undefined;
}

const NOT_JOINED: UseRoom = { room: null, status: 'connecting', reason: undefined };

/**
 * Joins a room while the component is mounted, and leaves with it. Another `url` or `options.room` is another room; what else
 * changes in `options` counts from the next join on. With `null` for the room nothing is joined.
 */
export function useRoom(url: string | URL | undefined, options: (Omit<JoinOptions, 'room'> & { room: string | null })): UseRoom {
  const [state, setState] = useState<UseRoom>(NOT_JOINED);
  const latest = useRef(options);
  latest.current = options;
  const { room: name } = options;
  const key = url === undefined ? undefined : String(url);
  useEffect(() => {
    setState(NOT_JOINED);
    if (name === null) return;
    const given = new AbortController();
    let joined: Room | undefined;
    join(key, { ...latest.current, room: name, signal: given.signal }).then(
      (room) => {
        // The component may be gone by now: React mounts twice in development.
        if (given.signal.aborted) return room.leave();
        joined = room;
        setState({ room, status: room.status, reason: room.reason });
        room.on('status', (status, reason) => given.signal.aborted || setState({ room, status, reason }));
      },
      ({ code }: { code?: string }) => given.signal.aborted || setState({ room: null, status: 'closed', reason: code ?? 'closed' }),
    );
    return () => {
      given.abort();
      joined?.leave();
    };
  }, [key, name]);
  return state;
}

const NOBODY: readonly Peer[] = [];

/** Everybody else in the room; rendered again when somebody comes, leaves, or changes state, path or connection. */
export function usePeers(room: Room | null): readonly Peer[] {
  const [version, setVersion] = useState(0);
  useEffect(() => {
    if (!room) return;
    const changed = () => setVersion((n) => n + 1);
    const followed = new Map<Peer, () => void>();
    const follow = (peer: Peer) => {
      if (followed.has(peer)) return;
      for (const event of ['state', 'status', 'path', 'encrypted'] as const) peer.on(event, changed);
      followed.set(peer, () => {
        for (const event of ['state', 'status', 'path', 'encrypted'] as const) peer.off(event, changed);
      });
    };
    const came = (peer: Peer) => (follow(peer), changed());
    const left = (peer: Peer) => (followed.get(peer)?.(), followed.delete(peer), changed());
    for (const peer of room.peers.values()) follow(peer);
    room.on('peer', came).on('leave', left);
    changed();
    return () => {
      room.off('peer', came).off('leave', left);
      for (const stop of followed.values()) stop();
    };
  }, [room]);
  void version;
  return room ? [...room.peers.values()] : NOBODY;
}

/** The streams that a peer sends, each with its label: `camera`, `screen`, or what the peer called it. */
export function useTracks(peer: Peer): readonly { stream: MediaStream; label: string; tracks: readonly MediaStreamTrack[] }[] {
  const cache = useRef<{ key: string; value: readonly { stream: MediaStream; label: string; tracks: readonly MediaStreamTrack[] }[] }>({ key: '', value: [] });
  const subscribe = useCallback(
    (changed: () => void) => {
      for (const event of ['stream', 'streamend', 'track', 'state'] as const) peer.on(event, changed);
      return () => {
        for (const event of ['stream', 'streamend', 'track', 'state'] as const) peer.off(event, changed);
      };
    },
    [peer],
  );
  const read = () => {
    const value = [...peer.streams.values()].map((stream) => ({ stream, label: peer.labelOf(stream), tracks: stream.getTracks() }));
    const key = value.map(({ stream, label, tracks }) => [stream.id, label, ...tracks.map(({ id }) => id)].join()).join(';');
    if (key !== cache.current.key) cache.current = { key, value };
    return cache.current.value;
  };
  return useSyncExternalStore(subscribe, read, read);
}

/** A ref for a `<video>` or `<audio>` element that shows a stream. */
export function useStream(stream: MediaStream | null | undefined): (element: HTMLMediaElement | null) => void {
  return useCallback(
    (element: HTMLMediaElement | null) => {
      if (element && element.srcObject !== (stream ?? null)) element.srcObject = stream ?? null;
    },
    [stream],
  );
}

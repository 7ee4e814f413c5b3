// What is noted of a page's peer connections, its WebSockets and its pictures.

/** Before any script of the page: its peer connections and WebSockets, and what becomes of them. */
export const watched = (page) => page.addInitScript(() => {
  const seen = (globalThis.seen = { peers: [], states: [], closed: [] });
  globalThis.RTCPeerConnection = class extends globalThis.RTCPeerConnection {
    constructor(...given) {
      super(...given);
      seen.peers.push(this);
      this.addEventListener('iceconnectionstatechange', () => seen.states.push(this.iceConnectionState));
    }
  };
  globalThis.WebSocket = class extends globalThis.WebSocket {
    constructor(...given) {
      super(...given);
      this.addEventListener('close', ({ code }) => seen.closed.push(code));
    }
  };
});

/** Starts to note when the picture of `name` advances. */
export const watchPicture = async (person, name) => {
  const video = await person.tile(name).locator('video').elementHandle();
  await video.evaluate((element) => {
    let [frames, at] = [element.getVideoPlaybackQuality().totalVideoFrames, performance.now()];
    globalThis.longest = 0;
    globalThis.frames = 0;
    setInterval(() => {
      const [now, count] = [performance.now(), element.getVideoPlaybackQuality().totalVideoFrames];
      globalThis.longest = Math.max(globalThis.longest, now - at);
      if (count === frames) return;
      globalThis.frames += count - frames;
      [frames, at] = [count, now];
    }, 20);
  });
};

/** The longest time in which the picture stood still, milliseconds, since the last question. */
export const stoodStill = (person) => person.page.evaluate(() => {
  const longest = globalThis.longest;
  [globalThis.longest, globalThis.frames] = [0, 0];
  return Math.round(longest);
});

/** Waits until the picture has advanced by that many frames since the last question. */
export const moves = (person, frames) => person.page.waitForFunction((frames) => globalThis.frames >= frames, frames);

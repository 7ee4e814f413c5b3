// A room in React. Built by esbuild: see README.md beside it.
import { usePeers, useRoom, useStream, useTracks } from 'callbox-react';
import { StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';

const asked = new URLSearchParams(location.search);
const box = new URL(asked.get('box') ?? 'http://localhost:8080/', location.href);
const name = asked.get('name') ?? 'Guest';

function useCamera() {
  const [camera, setCamera] = useState(null);
  useEffect(() => {
    let over = false;
    const opened = navigator.mediaDevices.getUserMedia({ audio: true, video: true });
    opened.then((stream) => over || setCamera(stream));
    return () => {
      over = true;
      opened.then((stream) => stream.getTracks().forEach((track) => track.stop()));
    };
  }, []);
  return camera;
}

function App() {
  const camera = useCamera();
  // Nothing is joined before the camera is there: it is in the first offer then.
  const { room, status, reason } = useRoom(new URL('ws', box), { room: camera && (asked.get('room') ?? 'react'), name, streams: camera ? [camera] : [] });
  const peers = usePeers(room);
  return (
    <>
      <h1>A room in React</h1>
      <p role="status">{reason ?? status}, {peers.length + 1} here</p>
      <div className="tiles">
        <figure><video ref={useStream(camera)} autoPlay playsInline muted /><figcaption>{name} (you)</figcaption></figure>
        {peers.map((peer) => <Tile key={peer.id} peer={peer} />)}
      </div>
    </>
  );
}

function Tile({ peer }) {
  const streams = useTracks(peer);
  return streams.map(({ stream, label }) => <Picture key={stream.id} stream={stream} caption={`${peer.name} (${label}) ${peer.path?.kind ?? ''}`} />);
}

function Picture({ stream, caption }) {
  return <figure className="theirs"><video ref={useStream(stream)} autoPlay playsInline /><figcaption>{caption}</figcaption></figure>;
}

createRoot(document.getElementById('app')).render(<StrictMode><App /></StrictMode>);

// A callbox client in Go: joins a room, answers who offers, offers to who is there, echoes what comes by data channel, and
// echoes messages.
//
//	go get github.com/pion/webrtc/v4 github.com/gorilla/websocket
//	go run client.go session.go ws://localhost:8080/ws ROOM NAME [TOKEN]
package main

import (
	"encoding/json"
	"log"
	"os"
	"regexp"

	"github.com/pion/webrtc/v4"
)

// Frame holds the fields of any frame that this client looks at. encoding/json ignores case; the box lets no client send a
// field that reads as one of its own.
type Frame struct {
	Type       string             `json:"type"`
	From       string             `json:"from"`
	PeerID     string             `json:"peerId"`
	Code       string             `json:"code"`
	Message    string             `json:"message"`
	Gap        bool               `json:"gap"`
	Content    any                `json:"content"`
	SDP        json.RawMessage    `json:"sdp"`
	Candidate  json.RawMessage    `json:"candidate"`
	ICEServers []webrtc.ICEServer `json:"iceServers"`
	Peers      []struct {
		PeerID string `json:"peerId"`
	} `json:"peers"`
}

// Another certificate in an offer comes from a new peer connection.
var certificate = regexp.MustCompile(`a=fingerprint:\S+ \S+`)

// Client handles all frames on one goroutine; pion's callbacks only say something.
type Client struct {
	session *Session
	own     string
	api     *webrtc.API
	config  webrtc.Configuration
	peers   map[string]*webrtc.PeerConnection
}

func (c *Client) connect(peer string) (*webrtc.PeerConnection, error) {
	if pc, known := c.peers[peer]; known {
		return pc, nil
	}
	pc, err := c.api.NewPeerConnection(c.config)
	if err != nil {
		return nil, err
	}
	c.peers[peer] = pc
	pc.OnICECandidate(func(candidate *webrtc.ICECandidate) {
		if candidate != nil {
			c.session.Say(map[string]any{"type": "candidate", "to": peer, "candidate": candidate.ToJSON()})
		}
	})
	pc.OnDataChannel(func(channel *webrtc.DataChannel) {
		channel.OnMessage(func(message webrtc.DataChannelMessage) {
			if message.IsString {
				_ = channel.SendText(string(message.Data))
			} else {
				_ = channel.Send(message.Data)
			}
		})
	})
	return pc, nil
}

func (c *Client) describe(peer, kind string, pc *webrtc.PeerConnection, make func() (webrtc.SessionDescription, error)) error {
	description, err := make()
	if err != nil {
		return err
	}
	// The description goes first: candidates begin to come with the next step.
	c.session.Say(map[string]any{"type": kind, "to": peer, "sdp": description.SDP})
	return pc.SetLocalDescription(description)
}

func (c *Client) hangUp(peer string) {
	if pc, known := c.peers[peer]; known {
		delete(c.peers, peer)
		_ = pc.Close()
	}
}

func (c *Client) receive(frame Frame) error {
	switch frame.Type {
	case "joined", "resumed":
		c.config.ICEServers, c.own = frame.ICEServers, frame.PeerID
		log.Println(frame.Type, "as", frame.PeerID)
		if frame.Type == "resumed" && !frame.Gap {
			return nil
		}
		// The newcomer offers to each peer of its list; so does who missed something.
		for peer := range c.peers {
			c.hangUp(peer)
		}
		for _, peer := range frame.Peers {
			pc, err := c.connect(peer.PeerID)
			if err != nil {
				return err
			}
			if _, err := pc.CreateDataChannel("go", nil); err != nil {
				return err
			}
			offer := func() (webrtc.SessionDescription, error) { return pc.CreateOffer(nil) }
			if err := c.describe(peer.PeerID, "offer", pc, offer); err != nil {
				return err
			}
		}
	case "ice-servers":
		c.config.ICEServers = frame.ICEServers
	case "offer":
		sdp := sdpOf(frame.SDP)
		if pc, known := c.peers[frame.From]; known {
			both := pc.SignalingState() == webrtc.SignalingStateHaveLocalOffer
			if both && c.own > frame.From {
				return nil // Both have offered: that of the smaller peer id gives way.
			}
			before := pc.RemoteDescription()
			if both || before != nil && certificate.FindString(before.SDP) != certificate.FindString(sdp) {
				c.hangUp(frame.From)
			}
		}
		pc, err := c.connect(frame.From)
		if err != nil {
			return err
		}
		if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: sdp}); err != nil {
			return err
		}
		return c.describe(frame.From, "answer", pc, func() (webrtc.SessionDescription, error) { return pc.CreateAnswer(nil) })
	case "answer":
		if pc, known := c.peers[frame.From]; known {
			return pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdpOf(frame.SDP)})
		}
	case "candidate":
		var candidate webrtc.ICECandidateInit
		if pc, known := c.peers[frame.From]; known && json.Unmarshal(frame.Candidate, &candidate) == nil && candidate.Candidate != "" {
			return pc.AddICECandidate(candidate)
		}
	case "peer-left":
		c.hangUp(frame.PeerID)
	case "message":
		if content, is := frame.Content.(map[string]any); !is || content["echo"] == nil {
			c.session.Say(map[string]any{"type": "message", "to": frame.From, "content": map[string]any{"echo": frame.Content}})
		}
	case "error":
		log.Println("error", frame.Code, frame.Message)
	}
	return nil
}

// A description is a string, or an object with one.
func sdpOf(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var object struct {
		SDP string `json:"sdp"`
	}
	_ = json.Unmarshal(raw, &object)
	return object.SDP
}

func main() {
	if len(os.Args) < 4 {
		log.Fatal("client URL ROOM NAME [TOKEN]")
	}
	// An answer may not change the roles of DTLS: the side that offered first stays the server, so this one always is.
	settings := webrtc.SettingEngine{}
	if err := settings.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
		log.Fatal(err)
	}
	codecs := &webrtc.MediaEngine{}
	if err := codecs.RegisterDefaultCodecs(); err != nil {
		log.Fatal(err)
	}
	token := func() string { return append(os.Args, "")[4] }
	session := &Session{url: os.Args[1], room: os.Args[2], name: os.Args[3], token: token}
	api := webrtc.NewAPI(webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(codecs))
	client := &Client{session: session, api: api, peers: map[string]*webrtc.PeerConnection{}}
	log.Println("ended", session.Run(func(text []byte) {
		var frame Frame
		// What a peer wrote may be anything: it costs a connection at most, and not the session.
		err := json.Unmarshal(text, &frame)
		if err == nil {
			err = client.receive(frame)
		}
		if err != nil {
			log.Println("dropped", frame.Type, err)
		}
	}))
}

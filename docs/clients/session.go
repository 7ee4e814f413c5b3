package main

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Close codes after which a client does not come back by itself.
var final = map[int]bool{1000: true, 4001: true, 4002: true, 4004: true, 4007: true}

// The box pings every 25 seconds: a connection that is silent for longer than this is gone.
const silent = time.Minute

// Session joins a room, resumes after a lost connection, and joins anew where nothing is left to resume. All frames come on
// the goroutine that calls Run; Say may be called from any.
type Session struct {
	url, room, name string
	token           func() string // asked before each join
	lock            sync.Mutex    // guards what follows
	socket          *websocket.Conn
	entered         bool
	lastID          int
	unanswered      []request
	entering        string
	resumeToken     string
	seq             int
}

type request struct {
	id   string
	text []byte
}

type envelope struct {
	Type        string `json:"type"`
	ID          string `json:"id"`
	Seq         int    `json:"seq"`
	Code        string `json:"code"`
	Message     string `json:"message"`
	RetryAfter  int    `json:"retryAfter"`
	ResumeToken string `json:"resumeToken"`
}

// Run gives each frame of the box to receive, over lost connections too; it returns why there is no way back.
func (s *Session) Run(receive func([]byte)) error {
	for attempts := 0; ; attempts++ {
		code := websocket.CloseAbnormalClosure
		if socket, _, err := websocket.DefaultDialer.Dial(s.url, nil); err == nil {
			s.socket = socket
			err = s.read(receive, &attempts)
			s.lock.Lock()
			s.entered = false
			s.lock.Unlock()
			_ = socket.Close()
			closed, ok := err.(*websocket.CloseError)
			if refused, ends := err.(refusal); ends {
				return refused
			} else if ok {
				code = closed.Code
			}
		}
		if final[code] {
			return fmt.Errorf("closed %d", code)
		}
		if code != websocket.CloseServiceRestart || attempts > 0 { // 1012: the box has another place for the session, at once.
			wait := 10_000
			if attempts < 6 {
				wait = 200 << attempts
			}
			time.Sleep(time.Duration(wait/2+rand.Intn(wait/2)) * time.Millisecond)
		}
	}
}

type refusal struct{ why string }

func (r refusal) Error() string { return r.why }

func (s *Session) read(receive func([]byte), attempts *int) error {
	alive := func() { _ = s.socket.SetReadDeadline(time.Now().Add(silent)) }
	pong := s.socket.PingHandler()
	s.socket.SetPingHandler(func(data string) error { alive(); return pong(data) })
	s.lock.Lock()
	s.enter()
	s.lock.Unlock()
	for {
		alive()
		_, text, err := s.socket.ReadMessage()
		if err != nil {
			return err
		}
		var frame envelope
		_ = json.Unmarshal(text, &frame) // A peer may have made up a "message" of another type.
		if err := s.take(frame); err != nil {
			return err
		}
		if s.entered {
			*attempts = 0
		}
		receive(text)
	}
}

func (s *Session) take(frame envelope) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	for n, one := range s.unanswered {
		if one.id == frame.ID {
			s.unanswered = append(s.unanswered[:n:n], s.unanswered[n+1:]...)
			break
		}
	}
	switch {
	case frame.Type == "joined" || frame.Type == "resumed":
		if frame.Type == "joined" {
			s.seq, s.unanswered = 0, nil
		}
		s.resumeToken, s.entered = frame.ResumeToken, true
		for _, one := range s.unanswered {
			s.write(one.text)
		}
	case frame.Type == "error" && frame.ID == s.entering:
		if frame.Code == "resume-failed" {
			s.resumeToken = ""
		} else if frame.RetryAfter > 0 {
			time.Sleep(time.Duration(frame.RetryAfter) * time.Millisecond)
		} else {
			return refusal{frame.Code + ": " + frame.Message}
		}
		s.enter()
	}
	if frame.Seq > s.seq {
		s.seq = frame.Seq
	}
	return nil
}

func (s *Session) enter() {
	message := map[string]any{"type": "resume", "resumeToken": s.resumeToken, "seq": s.seq}
	if s.resumeToken == "" {
		message = map[string]any{"type": "join", "roomId": s.room, "identity": s.name}
		if token := s.token(); token != "" {
			message["token"] = token
		}
	}
	one := s.numbered(message)
	s.entering = one.id
	s.write(one.text)
}

func (s *Session) numbered(message map[string]any) request {
	s.lastID++
	id := fmt.Sprint(s.lastID)
	message["id"] = id
	text, _ := json.Marshal(message)
	return request{id, text}
}

// A connection that fails here says so when it is read.
func (s *Session) write(text []byte) { _ = s.socket.WriteMessage(websocket.TextMessage, text) }

// Say sends a request; once more, under its old id, if the connection is lost before its answer.
func (s *Session) Say(message map[string]any) {
	s.lock.Lock()
	defer s.lock.Unlock()
	one := s.numbered(message)
	s.unanswered = append(s.unanswered, one)
	if s.entered {
		s.write(one.text)
	}
}

//! `callbox trace`: who says what to whom, as it happens.

use super::{Source, doctor};
use crate::clock;
use crate::config::Config;
use crate::net::https::{HttpsClient, system_trust, trust};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, header};
use rustls::RootCertStore;
use secrecy::ExposeSecret;
use serde_json::Value;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// How long the box may take to begin.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Within what time a box that was upgraded or restarted answers again, and how often it is asked.
const BACK_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes of one event at most.
const MAX_EVENT: usize = 1 << 20;

/// Whose messages to show.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("subject").required(true)))]
pub struct TraceArgs {
    /// The box's configuration: where it is, and its auth.admin_token.
    #[command(flatten)]
    pub source: Source,
    /// Shows what is said in this room.
    #[arg(long, group = "subject")]
    pub room: Option<String>,
    /// Shows what this peer (a peer id or an identity) says and gets.
    #[arg(long, group = "subject")]
    pub peer: Option<String>,
    /// Where the box is, for instance `https://call.example.org`; found in the configuration if
    /// left out.
    #[arg(long)]
    pub url: Option<String>,
    /// An admin token; that of the configuration if left out. `@FILE`, `-` for the standard input
    /// and CALLBOX_TOKEN keep it out of the list of processes.
    #[arg(long)]
    pub token: Option<String>,
    /// Prints each event as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Hands each line to `print` for as long as there is a box: one that is upgraded or restarted ends the
/// stream, and another one goes on.
///
/// # Errors
/// The box cannot be asked, or has ended; the text says what to do.
pub async fn trace(
    args: &TraceArgs,
    config: Option<&Config>,
    mut print: impl FnMut(&str),
) -> Result<(), String> {
    let base = match (&args.url, config) {
        (Some(url), _) => url.trim_end_matches('/').to_owned(),
        (None, Some(config)) => doctor::box_url(config)?,
        (None, None) => "http://127.0.0.1:8080".to_owned(),
    };
    let variable = std::env::var("CALLBOX_TOKEN").ok();
    let own = config.and_then(|config| config.auth.admin_token.as_ref());
    let token = doctor::given_token(args.token.as_deref(), variable)?
        .or_else(|| own.map(|token| token.expose_secret().to_owned()))
        .ok_or(
            "the admin API asks for a token: give --token, or --config FILE with auth.admin_token",
        )?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(room) = &args.room {
        query.append_pair("trace", room);
    }
    if let Some(peer) = &args.peer {
        query.append_pair("peer", peer);
    }
    let address = format!("{base}/v1/events?{}", query.finish());
    let tls = system_trust().unwrap_or_else(|_| trust(RootCertStore::empty()));
    let stream = Stream {
        client: HttpsClient::new(tls, None),
        base,
        address,
        token,
    };
    let mut body = stream.open().await.map_err(|refused| refused.reason)?;
    loop {
        let end = stream.read(body, args, &mut print).await?;
        body = stream.open_again(&end).await?;
        if args.json {
            print("{\"type\":\"trace-continues\"}\n");
        } else {
            let now = clock_time(clock::unix_now_ms());
            print(&format!(
                "{now}  the box was upgraded or restarted: what was said meanwhile is not shown\n"
            ));
        }
    }
}

/// The events of a box.
struct Stream {
    client: HttpsClient,
    base: String,
    address: String,
    token: String,
}

/// A stream that does not begin.
struct Refused {
    reason: String,
    /// Whether the box may begin it later: nothing answers, or a box that starts or ends.
    is_for_now: bool,
}

impl Stream {
    async fn open(&self) -> Result<Incoming, Refused> {
        let base = &self.base;
        let refused = |is_for_now, reason| Refused { reason, is_for_now };
        let request = Request::get(&self.address)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::<Bytes>::default())
            .map_err(|error| {
                refused(
                    false,
                    format!("{base} is not a valid URL of a box: {error}"),
                )
            })?;
        let response = self.client.open(request, TIMEOUT).await;
        let response = response.map_err(|error| refused(true, format!("{base}: {error}")))?;
        match response.status().as_u16() {
            200 => Ok(response.into_body()),
            401 => Err(refused(
                false,
                format!("{base} does not take this admin token"),
            )),
            404 => Err(refused(
                false,
                format!("{base} has no admin API: set auth.admin_token and reload the box"),
            )),
            status => Err(refused(status >= 500, format!("{base} answered {status}"))),
        }
    }

    /// Begins again what has ended.
    async fn open_again(&self, end: &str) -> Result<Incoming, String> {
        let deadline = Instant::now() + BACK_WITHIN;
        loop {
            match self.open().await {
                Ok(body) => return Ok(body),
                Err(refused) if refused.is_for_now && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(refused) => return Err(format!("{end}, and then: {}", refused.reason)),
            }
        }
    }

    /// Prints until the stream ends; returns how.
    async fn read(
        &self,
        mut body: Incoming,
        args: &TraceArgs,
        print: &mut impl FnMut(&str),
    ) -> Result<String, String> {
        let mut waiting = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return Ok(format!("the stream broke: {error}")),
            };
            waiting.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = waiting.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = waiting.drain(..end + 2).collect();
                if let Some(line) = line(args, &String::from_utf8_lossy(&event)) {
                    print(&line);
                }
            }
            if waiting.len() > MAX_EVENT {
                return Err("the box sent an event without end".into());
            }
        }
        Ok("the box has ended the stream".into())
    }
}

/// What is printed of one event; `None`: it is about something else.
fn line(args: &TraceArgs, event: &str) -> Option<String> {
    let data = event.lines().find_map(|line| line.strip_prefix("data:"))?;
    let event: Value = serde_json::from_str(data.trim_start()).ok()?;
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let kind = text("type");
    let concerned = match kind {
        "message" | "gap" => true,
        "peer-joined" | "peer-left" => {
            args.room.as_deref() == event["room"].as_str()
                || args
                    .peer
                    .as_deref()
                    .is_some_and(|peer| peer == text("identity") || peer == text("peerId"))
        }
        _ => false,
    };
    if !concerned {
        return None;
    }
    if args.json {
        return Some(format!("{event}\n"));
    }
    let mut line = clock_time(event["ts"].as_u64().unwrap_or_default());
    let _ = match kind {
        "gap" => write!(
            line,
            "  {} events are lost: the reader is slow",
            event["dropped"]
        ),
        "message" => {
            let size = event["size"].as_u64().unwrap_or_default();
            let sender = who(text("identity"), text("from"));
            let outcome = match event["refused"].as_bool() {
                Some(true) => " refused",
                _ => "",
            };
            write!(
                line,
                "  {sender} → {}  {}  {size} B{outcome}",
                receivers(&event),
                text("message")
            )
        }
        _ => write!(
            line,
            "  {}  {kind} {}",
            who(text("identity"), text("peerId")),
            text("reason")
        ),
    };
    Some(format!("{}\n", line.trim_end()))
}

fn receivers(event: &Value) -> String {
    let named: Vec<_> = event["to"].as_array().into_iter().flatten().collect();
    let all = event["receivers"].as_u64().unwrap_or_default();
    match named.as_slice() {
        [] => "box".to_owned(),
        [only] => short(only.as_str().unwrap_or_default()).to_owned(),
        _ => format!("{all} peers"),
    }
}

fn who(identity: &str, peer: &str) -> String {
    match identity == peer {
        true => short(peer).to_owned(),
        false => format!("{identity} ({})", short(peer)),
    }
}

/// Enough of a peer id to tell peers apart.
fn short(peer: &str) -> &str {
    peer.get(..6).unwrap_or(peer)
}

/// The time of day in UTC.
fn clock_time(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000 % 86_400, unix_ms % 1000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{ms:03}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn args(line: &[&str]) -> TraceArgs {
        let words = ["callbox", "trace"].iter().chain(line);
        match Cli::parse_from(words).command {
            Some(Command::Trace(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    const OFFER: &str = "event: message\ndata: {\"type\":\"message\",\"message\":\"offer\",\
        \"from\":\"abcdefghij\",\"identity\":\"ann\",\"room\":\"r\",\"to\":[\"zyxwvutsrq\"],\
        \"receivers\":1,\"size\":812,\"refused\":false,\"ts\":1700000000123}\n\n";

    #[test]
    fn a_message_is_one_line_of_who_to_whom_what_and_how_much() {
        let printed = line(&args(&["--room", "r"]), OFFER).unwrap();
        assert_eq!(
            printed,
            "22:13:20.123  ann (abcdef) → zyxwvu  offer  812 B\n"
        );
        let printed = line(&args(&["--room", "r", "--json"]), OFFER).unwrap();
        assert!(serde_json::from_str::<Value>(&printed).unwrap()["size"] == 812);
    }

    #[test]
    fn what_happens_in_other_rooms_is_not_printed() {
        let left = "event: peer\ndata: {\"type\":\"peer-left\",\"room\":\"s\",\"peerId\":\"abcdefghij\",\
            \"identity\":\"ann\",\"reason\":\"left\",\"ts\":0}\n\n";
        assert_eq!(line(&args(&["--room", "r"]), left), None);
        let printed = line(&args(&["--peer", "ann"]), left).unwrap();
        assert_eq!(printed, "00:00:00.000  ann (abcdef)  peer-left left\n");
        assert_eq!(line(&args(&["--room", "r"]), ":\n\n"), None);
    }

    /// A box of two lives, and one that takes no token after them.
    #[tokio::test]
    async fn a_box_that_is_upgraded_is_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let lives = tokio::spawn(async move {
            for answer in [Some(OFFER), None, Some(OFFER)] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await.unwrap();
                let head = match answer {
                    Some(_) => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
                    None => "HTTP/1.1 503 Draining\r\nContent-Length: 0\r\n\r\n",
                };
                let text = format!("{head}{}", answer.unwrap_or_default());
                stream.write_all(text.as_bytes()).await.unwrap();
            }
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let refusal = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(refusal).await.unwrap();
        });
        let args = args(&["--room", "r", "--token", "t", "--url", &url]);
        let mut lines = vec![];
        let ended = trace(&args, None, |line| lines.push(line.to_owned())).await;
        assert!(
            ended
                .unwrap_err()
                .contains("does not take this admin token")
        );
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains("offer") && lines[2].contains("offer"));
        assert!(lines[1].contains("was upgraded or restarted"), "{lines:?}");
        lives.await.unwrap();
    }

    #[test]
    fn a_room_or_a_peer_has_to_be_named() {
        assert!(Cli::try_parse_from(["callbox", "trace"]).is_err());
        assert!(Cli::try_parse_from(["callbox", "trace", "--room", "a", "--peer", "b"]).is_err());
    }
}

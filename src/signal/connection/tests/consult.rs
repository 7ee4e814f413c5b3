//! A backend that takes its time.

use super::parking::Bare;
use super::*;
use crate::protocol::{SubscriptionOptions, Wish};
use crate::signal::connection::consult::ask;
use crate::signal::hub::Standing;
use std::sync::Mutex;
use tokio::sync::{Barrier, oneshot};

/// Answers once that many questions are out.
struct Together(Arc<Barrier>);

impl Consult for Together {
    fn is_on(&self) -> bool {
        true
    }

    fn ask(&self, inquiry: Inquiry<'_>) -> Consulting {
        let barrier = Arc::clone(&self.0);
        let is_even = match inquiry.request {
            Consulted::Join { room, .. } => room.ends_with(['0', '2', '4', '6', '8']),
            _ => panic!("{inquiry:?}"),
        };
        Box::pin(async move {
            barrier.wait().await;
            match is_even {
                true => Consent::Granted {
                    role: None,
                    metadata: None,
                },
                false => Consent::forbidden("odd".into()),
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn all_topics_of_a_request_are_asked_about_at_once_and_those_beyond_the_bound_are_refused() {
    let consult: Arc<dyn Consult> = Arc::new(Together(Arc::new(Barrier::new(16))));
    let wish = |n: usize| Wish {
        topic: format!("topic-{n}").into(),
        options: SubscriptionOptions::default(),
        // The third one is a room of the client's own.
        room: (n == 2).then(|| "r".into()),
        is_refused: false,
    };
    let message = ClientMessage {
        id: None,
        kind: MessageType::Subscribe,
        dialect: None,
        request: Request::Exchange(ExchangeRequest::Subscribe {
            id: 1,
            topics: (0..19).map(wish).collect(),
        }),
    };
    let standing = Standing {
        peer: PeerId::from_bits(7),
        identity: None,
        room: None,
        claims: None,
    };
    let standing = |_: Option<&str>| Some((standing, false));
    let client = [192, 0, 2, 1].into();
    let (_, answer) = ask(&consult, standing, &message, &Grant::open(), client).unwrap();
    let answer = timeout(Duration::from_secs(60), answer).await;
    let answer = answer.expect("a question waits for the answer to another one");
    let refused: Vec<_> = (0..19).map(|n| n != 2 && (n % 2 == 1 || n > 16)).collect();
    assert_eq!(answer, Consent::Topics(refused));
}

/// Lets everybody in, as soon as the answer to its one question is given from outside.
struct Held(Mutex<Option<oneshot::Receiver<()>>>);

impl Consult for Held {
    fn is_on(&self) -> bool {
        true
    }

    fn ask(&self, _: Inquiry<'_>) -> Consulting {
        let held = self.0.lock().unwrap().take();
        Box::pin(async {
            if let Some(held) = held {
                let _ = held.await;
            }
            Consent::Granted {
                role: None,
                metadata: None,
            }
        })
    }
}

impl Callbox {
    /// A client whose join waits for an answer.
    async fn join_held(&self) -> (Client, oneshot::Sender<()>) {
        let (answer, held) = oneshot::channel();
        let (client, server) = duplex(WIDE);
        let client_address = [192, 0, 2, 1].into();
        let admission = self.driver.admit(client_address, DialectKind::Native);
        let settings = ConnectionSettings {
            consult: Some(Arc::new(Held(Mutex::new(Some(held))))),
            ..settings()
        };
        let carrier = Bare::of(server);
        let task = tokio::spawn(run(carrier, Native, admission.unwrap(), None, settings));
        let socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let mut client = Client { socket, task };
        client.say(json!({"type": "join", "roomId": "r"})).await;
        client.until("welcome").await;
        client.until_quiet().await;
        assert_eq!(self.gauges().sessions, 0, "it waits");
        (client, answer)
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_question_is_out_stops_once_it_is_answered() {
    let callbox = Callbox::new(1 << 18);
    let (mut ann, answer) = callbox.join_held().await;
    let answered = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        answer.send(()).unwrap();
    };
    let began = Instant::now();
    tokio::join!(callbox.driver.park(Duration::from_secs(1)), answered);
    let took = began.elapsed().as_millis();
    assert!(took < 600, "no longer than the answer takes: {took} ms");
    assert_eq!(callbox.gauges().sessions, 1, "it has joined before");
    let _ = callbox.driver.hand_over();
    assert_eq!(callbox.driver.take_parked().len(), 1);
    assert!((&mut ann.task).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_question_is_not_answered_in_time_is_closed() {
    let callbox = Callbox::new(1 << 18);
    let (mut ann, answer) = callbox.join_held().await;
    callbox.driver.park(Duration::from_secs(1)).await;
    let _ = callbox.driver.hand_over();
    assert!(callbox.driver.take_parked().is_empty());
    callbox.driver.leave_to_successor();
    assert_eq!(ann.closed().await, CloseCode::Restart as u16);
    drop(answer);
}

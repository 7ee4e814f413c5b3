//! What goes to the node of the names reads as it was said.

use super::*;
use crate::protocol::parse;
use proptest::prelude::*;
use serde_json::json;

fn message(kind: MessageType, request: ExchangeRequest) -> ClientMessage {
    ClientMessage {
        dialect: None,
        id: None,
        kind,
        request: Request::Exchange(request),
    }
}

/// What a message is, in words that can be compared.
fn shown(message: &ClientMessage) -> String {
    format!("{:?} {:?}", message.kind, message.request)
}

fn said() -> impl Strategy<Value = ClientMessage> {
    let kinds = vec![
        MessageType::Offer,
        MessageType::Answer,
        MessageType::Candidate,
        MessageType::Hangup,
    ];
    prop_oneof![
        any::<(String, u128)>().prop_map(|(name, proof)| {
            let takeover = Takeover::Shared;
            let request = ExchangeRequest::Claim {
                name,
                proof,
                takeover,
            };
            message(MessageType::Message, request)
        }),
        (
            prop::sample::select(kinds),
            any::<(String, String, Option<String>, bool)>()
        )
            .prop_map(|(kind, (to, word, payload, parks))| {
                let addressed = Addressed {
                    kind: word.into(),
                    payload: payload.map(String::into_boxed_str),
                };
                let request = ExchangeRequest::Send {
                    to: to.into(),
                    message: Arc::new(addressed),
                    parks,
                };
                message(kind, request)
            }),
        any::<()>().prop_map(|()| message(MessageType::Message, ExchangeRequest::Release)),
    ]
}

proptest! {
    #[test]
    fn what_concerns_names_reads_as_it_was_said(said in said()) {
        prop_assert!(concerns_names(&said.request));
        let text = text(&said).unwrap();
        let Some(Input::Frame { conn, message: Ok(read), .. }) = read(ConnId(7), &text) else {
            return Err(TestCaseError::fail(text));
        };
        prop_assert_eq!(conn, ConnId(7));
        prop_assert_eq!(shown(&read), shown(&said));
        prop_assert!(parse(&text).is_err(), "no client says so");
    }

    /// No message that a client of the native protocol can send is taken for one about names.
    #[test]
    fn nothing_else_concerns_names(text in ".*", name: String) {
        for text in [text, json!({ "type": "ping", "t": 1, "names": name }).to_string()] {
            let Ok(message) = parse(&text) else { continue };
            prop_assert!(!concerns_names(&message.request));
            prop_assert!(super::text(&message).is_none());
            let carried = message.to_text().unwrap();
            prop_assert!(read(ConnId(7), &carried).is_none());
        }
    }
}

/// A message carries fields that its client chooses to the home of the room.
#[test]
fn no_field_of_a_message_is_taken_for_one_about_names() {
    for names in [
        json!("release"),
        json!("alive"),
        json!({"claim": {"name": "ann", "proof": [0, 1]}}),
    ] {
        let call = json!({"type": "call", "to": "ann", "names": names});
        let carried = parse(&call.to_string()).unwrap().to_text().unwrap();
        assert!(carried.contains("names"), "{carried}");
        assert!(read(ConnId(7), &carried).is_none(), "{carried}");
    }
}

#[test]
fn names_of_one_node_stay_there() {
    let takeover = Takeover::Private;
    let claim = ExchangeRequest::Claim {
        name: "of mqtt".to_owned(),
        proof: 1,
        takeover,
    };
    let claim = message(MessageType::Message, claim);
    assert!(text(&claim).is_none() && !concerns_names(&claim.request));
    let alive = alive().unwrap();
    assert!(matches!(
        read(ConnId(7), &alive),
        Some(Input::Alive { conn: ConnId(7) })
    ));
}

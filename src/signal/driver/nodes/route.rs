//! Where an input of a connection belongs: to the hub of this node, to another node, or nowhere yet.

use super::super::{Driver, State, now};
use super::{Granted, HEAVY, Links, MAX_BEHIND, MAX_GATED, Message, Moving, Route, SEEK, names};
use crate::auth::Grant;
use crate::protocol::{ClientMessage, Request, ResumeToken};
use crate::signal::hub::{ConnId, Input, granted};
use crate::signal::nodes::{Frame, Sought, Word};
use secrecy::ExposeSecret;
use std::collections::VecDeque;

/// A message with its grant as another node reads it.
pub(super) fn frame(message: &ClientMessage, grant: &Granted) -> Option<Frame> {
    let room = match &message.request {
        Request::Join(join) => Some(join.room_id.clone()),
        _ => None,
    };
    let open = Ok(Grant::open());
    let wants_grant = message.wants_grant() || names::is_claim(&message.request);
    let grant = grant.as_deref().unwrap_or(&open).as_ref().ok();
    let grant = grant.filter(|_| wants_grant);
    Some(Frame {
        text: names::text(message).or_else(|| message.to_text())?,
        room,
        dialect: message.dialect,
        grant: grant.and_then(|grant| serde_json::to_string(grant).ok()),
    })
}

/// Whether a request goes where the session of its client is.
fn goes_along(request: &Request) -> bool {
    !matches!(request, Request::Exchange(_)) || names::concerns_names(request)
}

impl Links {
    /// A client has given a sign of life, for which the node of its name may have asked.
    fn say_alive(&mut self, conn: ConnId) {
        if let Some(Route::There(there)) = self.routes.get_mut(&conn)
            && let Some(text) = names::alive()
        {
            let (vconn, number) = (conn.0, there.end.says());
            let frame = Frame {
                text,
                room: None,
                dialect: None,
                grant: None,
            };
            let word = Word::Frame {
                vconn,
                number,
                frame,
            };
            self.nodes.say(there.node, word);
        }
    }
}

impl Driver {
    /// Sends an input where it belongs; gives back one for the hub of this node.
    pub(in crate::signal::driver) fn route(
        &self,
        state: &mut State,
        given: Input,
    ) -> Option<Input> {
        let Some(links) = &mut state.links else {
            return Some(given);
        };
        if !links.nodes.is_open() {
            if links.gated.len() < MAX_GATED {
                links.gated.push_back(given);
            }
            return None;
        }
        match given {
            Input::Frame {
                conn,
                message,
                grant,
            } => self.route_frame(state, conn, message, grant),
            Input::Confirmed { conn, peer, seq } => match links.routes.get(&conn) {
                Some(Route::There(there)) => {
                    let vconn = conn.0;
                    links
                        .nodes
                        .say(there.node, Word::Confirmed { vconn, peer, seq });
                    None
                }
                _ => Some(Input::Confirmed { conn, peer, seq }),
            },
            Input::Alive { conn } => {
                links.say_alive(conn);
                Some(Input::Alive { conn })
            }
            Input::Closed { conn, loss } => {
                links.forget_route(conn, loss);
                links.flush();
                Some(Input::Closed { conn, loss })
            }
            other => Some(other),
        }
    }

    fn route_frame(
        &self,
        state: &mut State,
        conn: ConnId,
        message: Message,
        grant: Granted,
    ) -> Option<Input> {
        let links = state.links.as_mut()?;
        let back = |message, grant| {
            Some(Input::Frame {
                conn,
                message,
                grant,
            })
        };
        let there = match links.routes.get_mut(&conn) {
            Some(Route::Moving(moving)) => {
                if moving.behind.len() < MAX_BEHIND {
                    moving.behind.push_back((message, grant));
                }
                return None;
            }
            Some(Route::There(there)) => Some(there.node),
            None => None,
        };
        let Ok(message) = message else {
            return back(message, grant);
        };
        // The token of a client with a name was judged before it claims the name.
        let rights = match names::is_claim(&message.request) {
            true => state.hub.rights(conn),
            false => None,
        };
        let claims = rights.is_some();
        let grant = rights.map_or(grant, |rights| Some(Box::new(Ok(rights))));
        let is_granted = grant.as_deref().is_none_or(Result::is_ok);
        let sought = match (&message.request, is_granted, &there) {
            (Request::Exchange(_), true, None) if claims => Some(Sought::People),
            (Request::Exchange(_), ..) => None,
            (Request::Lobby, _, None) => None,
            // Who is in a room has entered it already.
            (Request::Lobby, _, Some(_)) => return None,
            (Request::Join(join), true, _) => Some(Sought::Room(join.room_id.as_str().into())),
            (Request::Register { .. }, true, None) if !state.hub.has_session(conn) => {
                Some(Sought::People)
            }
            (Request::Resume { token, .. }, _, None) => {
                let token = token.expose_secret();
                let elsewhere = !state.hub.has_session(conn)
                    && !state.hub.has_token(token)
                    && !state.hub.has_ended(now(), token);
                let locator = ResumeToken::parse(token).and_then(|token| token.locator());
                locator.filter(|_| elsewhere).map(Sought::Located)
            }
            _ => None,
        };
        match (sought, there) {
            (Some(Sought::Room(room)), None) if state.hub.has_room(&room) => {
                back(Ok(message), grant)
            }
            (Some(sought), _) => {
                let Ok(grant) = granted(grant).or_else(|error| match &message.request {
                    Request::Resume { .. } => Ok(Grant::open()),
                    _ => Err(error),
                }) else {
                    return None;
                };
                let until = now().instant + SEEK;
                let from = match links.routes.remove(&conn) {
                    Some(Route::There(there)) => Some(there),
                    _ => None,
                };
                let moving = Moving {
                    from,
                    to: None,
                    sought,
                    message,
                    grant,
                    behind: VecDeque::new(),
                    until,
                    astray: 0,
                };
                if let Some(outbox) = state.outboxes.get(&conn) {
                    outbox.hold(until + SEEK);
                }
                links.nodes.seek(conn, &moving.sought);
                links.routes.insert(conn, Route::Moving(Box::new(moving)));
                None
            }
            (None, Some(node)) if goes_along(&message.request) => {
                if let (Some(frame), Some(there)) =
                    (frame(&message, &grant), links.there(conn, node))
                {
                    let (vconn, number) = (conn.0, there.end.says());
                    let word = Word::Frame {
                        vconn,
                        number,
                        frame,
                    };
                    links.nodes.say(node, word);
                }
                if !links.nodes.is_light(node)
                    && let Some(outbox) = state.outboxes.get(&conn)
                {
                    outbox.hold(now().instant + HEAVY);
                }
                None
            }
            (None, _) => {
                let (message, grant) = links.wait_for_rooms(conn, message, grant)?;
                back(Ok(message), grant)
            }
        }
    }
}

//! `POST /v1/login`: a token for a name and a password of `auth.users`.

use super::AppState;
use super::extract::Text;
use super::guard::ClientAddr;
use super::json::as_json;
use super::problem::Problem;
use crate::auth::passwords::MAX_PASSWORD;
use crate::auth::{Bearer, is_name};
use crate::clock::unix_now;
use crate::network::NetworkCounts;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long the token of a login is good for: a working day.
const TTL: Duration = Duration::from_secs(12 * 3600);
/// Passwords that are hashed at once: each takes 19 MiB and a core for a moment.
static HASHING: Semaphore = Semaphore::const_new(2);
/// Logins that wait for that. One more is refused.
static WAITING: Semaphore = Semaphore::const_new(64);

/// Logins of one network that are under way at once: each waits for a slot that others wait for too.
const MAX_OF_NETWORK: u32 = 8;
/// Logins under way in all, of which a wide network may have half.
const MAX_UNDER_WAY: u32 = 66;
static UNDER_WAY: LazyLock<Mutex<NetworkCounts>> = LazyLock::new(Mutex::default);

/// One of them.
struct UnderWay(IpAddr);

impl UnderWay {
    fn begin(client: IpAddr) -> Option<Self> {
        let mut counts = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is not counted must not be made: its end would give back a place, and lock again.
        (counts.take(client, MAX_OF_NETWORK, MAX_UNDER_WAY)).then(|| Self(client))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut counts = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        counts.give_back(self.0);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    name: String,
    password: SecretString,
}

/// Gives a token to who knows the password of a name of `auth.users`. The token is for every room
/// and for calls.
#[utoipa::path(post, path = "/v1/login", tag = "credentials",
    request_body(content = String, content_type = "application/json", description = "`{name, password}`"),
    responses((status = 200, description = "`{token, identity, expiresAt}`"),
        (status = 400, description = "a field is missing or has a wrong form"),
        (status = 401, description = "`bad-password`: the name or the password is wrong"),
        (status = 404, description = "nobody logs in here: `auth.users` is empty"),
        (status = 429, description = "`rate-limited`, with Retry-After")))]
pub(super) async fn login(
    State(state): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    Text(body): Text,
) -> Result<Response, Response> {
    let people = (state.people)();
    if people.is_empty() {
        return Err(Problem::not_found().into_response());
    }
    let Login { name, password } = read(&body).map_err(IntoResponse::into_response)?;
    let allowed = state
        .driver
        .with_hub(|hub, now, _| hub.may_log_in(now, client, &name));
    allowed.map_err(|refusal| slow_down(refusal.retry_after))?;
    let login = {
        let _under_way = UnderWay::begin(client).ok_or_else(|| slow_down(None))?;
        let _waiting = WAITING.try_acquire().map_err(|_| slow_down(None))?;
        let _slot = HASHING.acquire().await;
        let (name, password) = (name.clone(), password.clone());
        let login = people.mark(&name);
        let verify = move || {
            people
                .verify(&name, password.expose_secret())
                .then_some(login)
        };
        tokio::task::spawn_blocking(verify).await.unwrap_or(None)
    };
    let Some(login) = login else {
        state
            .driver
            .with_hub(|hub, now, _| hub.login_failed(now, client, &name));
        let detail = "the name or the password is wrong";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "bad-password", detail);
        return Err(problem.into_response());
    };
    let bearer = Bearer {
        identity: name,
        rooms: vec!["*".to_owned()],
        role: None,
        call: Some(true),
        login,
    };
    let (token, expires_at) = (state.sign)(&bearer, unix_now(), TTL).ok_or_else(|| {
        let detail = "the box has no auth.secret to sign with";
        Problem::new(StatusCode::CONFLICT, "no-signing-key", detail).into_response()
    })?;
    let answer = json!({ "token": token, "identity": bearer.identity, "expiresAt": expires_at });
    Ok(as_json(answer.to_string()))
}

/// Tells pages whether people log in here.
#[utoipa::path(get, path = "/v1/login", tag = "credentials",
    responses((status = 200, description = "`{\"login\": true}` or `{\"login\": false}`")))]
pub(super) async fn logs_in(State(state): State<Arc<AppState>>) -> Response {
    let logs_in = !(state.people)().is_empty();
    as_json(json!({ "login": logs_in }).to_string())
}

fn read(body: &str) -> Result<Login, Problem> {
    let invalid = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, "invalid-message", detail);
    // Its message could show the password.
    let login: Login = serde_json::from_str(body)
        .map_err(|_| invalid("the body is an object with `name` and `password`, both texts"))?;
    if !is_name(&login.name) {
        return Err(invalid("`name` has 1 to 128 bytes, none of them controls"));
    }
    if login.password.expose_secret().len() > MAX_PASSWORD {
        return Err(invalid("`password` is longer than 1024 bytes"));
    }
    Ok(login)
}

fn slow_down(wait: Option<Duration>) -> Response {
    let detail = "too many logins were tried: wait and try again";
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", detail);
    let mut response = problem.into_response();
    let seconds = wait.map_or(1, |wait| wait.as_secs() + 1);
    let seconds = HeaderValue::from(seconds);
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_leaves_slots_to_others() {
        let client = |host: u16| IpAddr::from([0x2001, 0xdb8, 0x10, 0, 0, 0, 0, host]);
        let mut held: Vec<_> = (0..8).map_while(|n| UnderWay::begin(client(n))).collect();
        assert_eq!(held.len(), 8);
        assert!(UnderWay::begin(client(9)).is_none(), "of the same /64");
        let other = UnderWay::begin(IpAddr::from([192, 0, 2, 200]));
        assert!(other.is_some());
        held.pop();
        assert!(UnderWay::begin(client(9)).is_some());
    }
}

//! What other nodes may ask this one for, and how it answers.

use super::guard::ClientAddr;
use super::others::OneNode;
use super::question::{Answer, Question};
use super::{AppState, admin, compat, sessions};
use axum::{Extension, Router};
use std::sync::Arc;
use tower::ServiceExt;

/// What other nodes may ask for: what an operator may, and what is said on connections that requests
/// carry. The path of the latter is a client's.
#[derive(Clone)]
pub struct NodeRouter {
    admin: Router,
    carried: Router,
}

/// The routes that other nodes may ask for.
pub fn node_router(context: Arc<AppState>) -> NodeRouter {
    let carried = sessions::routes(&context).split_for_parts().0;
    let carried = compat::carried(carried, &context);
    let alone = |router: Router<Arc<AppState>>| {
        let router = router.layer(Extension(OneNode));
        router.with_state(Arc::clone(&context))
    };
    NodeRouter {
        admin: alone(admin::routes(&context).split_for_parts().0),
        carried: alone(carried),
    }
}

/// Answers what another node asks.
pub async fn answer(router: NodeRouter, question: String) -> Option<String> {
    let question = Question::read(&question)?;
    let router = match question.client() {
        None => router.admin,
        Some(client) => router.carried.layer(Extension(ClientAddr(client))),
    };
    let response = router.oneshot(question.request()?).await.ok()?;
    Answer::of(response).await
}

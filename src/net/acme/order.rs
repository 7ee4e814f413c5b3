//! One order, from the account to the certificate (RFC 8555 section 7.4).

use crate::config::Acme;
use crate::net::certs::{CertStore, provider};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, HttpClient, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use std::time::Duration;

/// How the authority is asked whether it is done: it takes a few seconds.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// Makes an account, which agrees to the authority's terms of service.
pub(super) async fn register(
    client: Box<dyn HttpClient>,
    acme: &Acme,
) -> Result<(Account, AccountCredentials), Error> {
    let contact = acme.email.as_ref().map(|email| format!("mailto:{email}"));
    let contacts: Vec<&str> = contact.as_deref().into_iter().collect();
    let account = NewAccount {
        contact: &contacts,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let builder = Account::builder_with_http(client);
    builder.create(&account, acme.directory.clone(), None).await
}

/// Takes up an account made before.
pub(super) async fn restore(
    client: Box<dyn HttpClient>,
    credentials: AccountCredentials,
) -> Result<Account, Error> {
    Account::builder_with_http(client)
        .from_credentials(credentials)
        .await
}

/// Orders a certificate for `domains`; returns the new key and the chain, PEM. Answers to the
/// authority's challenges are left in `store`.
pub(super) async fn place(
    account: &Account,
    domains: &[String],
    store: &CertStore,
) -> Result<String, Error> {
    let names: Vec<Identifier> = domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let mut challenge = authorization
            .challenge(ChallengeType::TlsAlpn01)
            .ok_or(Error::Unsupported("TLS-ALPN-01"))?;
        let domain = challenge.identifier().to_string();
        let digest = challenge.key_authorization().digest();
        store.answer_challenge(&domain, answer(&domain, digest.as_ref())?);
        challenge.set_ready().await?;
    }
    match order.poll_ready(&POLL).await {
        Ok(OrderStatus::Ready) => {}
        outcome => {
            let reason = refusal(&mut order).await;
            return Err(match (reason, outcome) {
                (Some(reason), _) => reason,
                (None, Err(error)) => error,
                (None, Ok(status)) => Error::Other(format!("the order is {status:?}").into()),
            });
        }
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&POLL).await?;
    Ok(format!("{key}{chain}"))
}

/// The error in words, those of its parts included.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::Api(problem) => {
            let mut words = problem
                .detail
                .clone()
                .unwrap_or_else(|| problem.to_string());
            for part in &problem.subproblems {
                words += &format!("; {}", part.detail.as_deref().unwrap_or_default());
            }
            words
        }
        other => other.to_string(),
    }
}

/// Whether the authority has no such account (any more).
pub(super) fn is_unknown_account(error: &Error) -> bool {
    matches!(error, Error::Api(problem)
        if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist"))
}

/// RFC 8737 section 3: a self-signed certificate for the name with the digest in it.
fn answer(domain: &str, digest: &[u8]) -> Result<CertifiedKey, Error> {
    let make = || {
        let mut params = CertificateParams::new(vec![domain.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        Ok::<_, rcgen::Error>((cert.der().clone(), PrivateKeyDer::from(key)))
    };
    let (cert, key) = make().map_err(|error| Error::Other(Box::new(error)))?;
    let key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| Error::Other(Box::new(error)))?;
    Ok(CertifiedKey::new(vec![cert], key))
}

/// Why the authority refused a challenge: the reason is in the challenge, not in the order.
async fn refusal(order: &mut Order) -> Option<Error> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let state = authorization.refresh().await.ok()?;
        let refused = state.challenges.iter().find_map(|c| c.error.clone());
        if refused.is_some() {
            return refused.map(Error::Api);
        }
    }
    None
}

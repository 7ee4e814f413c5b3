//! A node's own thread: its beats and the answers of Redis do not wait behind the handshakes of thousands of clients, which
//! would cost the node its lease.

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

/// Runs `task` on a thread of its own. The future that is returned ends when `task` ends; dropping it ends `task`.
pub(super) fn beside(
    task: impl Future<Output = ()> + Send + 'static,
) -> Result<impl Future<Output = ()> + Send> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the node's runtime")?;
    let (stop, stopped) = oneshot::channel::<()>();
    let (ending, ended) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("cluster".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = task => {}
                    _ = stopped => {}
                }
            });
            drop(ending);
        })
        .context("cannot start the node's thread")?;
    Ok(async move {
        let _ = ended.await;
        drop(stop);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[tokio::test]
    async fn a_task_ends_with_who_waits_for_it_and_the_other_way_round() {
        let here = std::thread::current().id();
        let (say, said) = oneshot::channel();
        let task = async move {
            let _ = say.send(std::thread::current().id());
        };
        beside(task).unwrap().await;
        assert_ne!(said.await.unwrap(), here);

        let held = Arc::new(());
        let holds = Arc::clone(&held);
        let waiting = beside(async move {
            let _holds = holds;
            std::future::pending::<()>().await;
        });
        assert_eq!(Arc::strong_count(&held), 2);
        drop(waiting);
        let ended = async {
            while Arc::strong_count(&held) > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended)
            .await
            .unwrap();
    }
}

//! What httpd's children ask of the engine as a whole: a question that goes to all of its threads at once, and whose answer does not
//! wait for those that are late.

use super::Engine;
use super::thread::ThreadHandle;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Bring the [`super::metrics::Gauge`]s up to date. The answer is empty.
    Gauges,
}

/// How long a thread may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

impl Engine {
    /// What each thread says to this; `None` for one that does not come to it in time. To be called on a thread with a runtime.
    pub async fn ask_threads<T: Send + 'static>(
        &self,
        question: impl Fn(&ThreadHandle) -> T + Send + Sync + 'static,
    ) -> Vec<Option<T>> {
        let question = Arc::new(question);
        let answers: Vec<_> = (0..self.threads())
            .map(|number| {
                let (answered, answer) = oneshot::channel();
                let question = question.clone();
                // Whoever asked may have given up.
                self.run_on(
                    number,
                    Box::new(move |here| Box::pin(async move { drop(answered.send(question(&here))) })),
                );
                answer
            })
            .collect();
        let end = tokio::time::Instant::now() + PATIENCE;
        let mut said = Vec::new();
        for answer in answers {
            said.push(tokio::time::timeout_at(end, answer).await.ok().and_then(Result::ok));
        }
        said
    }
}

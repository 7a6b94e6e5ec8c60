//! A task in the background that whoever needs it starts, and starts again when its runtime has ended.

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Ends with its owner.
#[derive(Default)]
pub(crate) struct Tended(Mutex<Option<JoinHandle<()>>>);

impl Tended {
    /// Sees to it that it runs. Outside a runtime nothing happens: the next caller tries again.
    pub(crate) fn tend<F>(&self, work: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut task = self.0.lock();
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            *task = Some(runtime.spawn(work()));
        }
    }
}

impl Drop for Tended {
    fn drop(&mut self) {
        if let Some(task) = self.0.get_mut() {
            task.abort();
        }
    }
}

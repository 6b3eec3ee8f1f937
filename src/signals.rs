//! What other threads and processes want: that the program stop, or that it look for a new version.
//!
//! Of SIGINT and SIGTERM the first asks the program to stop, the second ends the process as if it had
//! never been taken.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;

use crate::broker::Waker;
use crate::download::Pause;
use crate::time::{Clock, Instant};

/// The signals, as long as this lives.
pub struct StopSignals {
    /// Set by the first signal.
    pub flag: Arc<AtomicBool>,
    /// Ends the wait that the program is in, once that is known.
    waker: Arc<Mutex<Option<Waker>>>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl StopSignals {
    /// Takes the signals.
    ///
    /// # Errors
    /// The operating system does not let us.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the adapter that hands signals to the driver"
    )]
    pub fn take() -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let flag = Arc::new(AtomicBool::new(false));
        let waker = Arc::<Mutex<Option<Waker>>>::default();
        let (stop, woken) = (Arc::clone(&flag), Arc::clone(&waker));
        let work = move || {
            for signal in signals.forever() {
                if stop.swap(true, Ordering::Relaxed) {
                    let _ = emulate_default_handler(signal);
                }
                let waker = woken.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(waker) = &*waker {
                    waker.wake();
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(work)?;
        Ok(Self {
            flag,
            waker,
            handle,
            thread: Some(thread),
        })
    }

    /// From now on a signal ends the wait that `waker` is of. One that came before has set the flag,
    /// which is looked at before the first wait.
    pub fn wake(&self, waker: Waker) {
        let mut present = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        *present = Some(waker);
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // The thread only waits for signals.
            let _ = thread.join();
        }
    }
}

/// The wish, from another thread, that `follow` look for a new version now.
#[derive(Debug, Default)]
pub struct Trigger {
    /// Set by a wish, and taken back by the look that fulfils it.
    pub flag: AtomicBool,
    /// Whether what is found is to be processed anew.
    is_forced: AtomicBool,
    /// Ends the wait between two looks, once that is known.
    waker: Mutex<Option<Waker>>,
}

impl Trigger {
    /// Ends the wait for the next look; if forced, the run that follows begins at record 1.
    pub fn pull(&self, is_forced: bool) {
        self.is_forced.fetch_or(is_forced, Ordering::Relaxed);
        self.flag.store(true, Ordering::Relaxed);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = &*waker {
            waker.wake();
        }
    }

    /// From now on a wish ends the wait that `waker` is of. One that came before has set the flag,
    /// which is looked at before the first wait.
    pub fn wake(&self, waker: Waker) {
        let mut present = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        *present = Some(waker);
    }

    /// Whether the run that begins now is the one that was to begin at record 1.
    pub fn take_forced(&self) -> bool {
        self.is_forced.swap(false, Ordering::Relaxed)
    }
}

/// A pause that a wake ends.
pub struct Sleeper {
    clock: Arc<dyn Clock>,
    wakes: Receiver<()>,
    sender: SyncSender<()>,
}

impl Sleeper {
    /// One that goes by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (sender, wakes) = sync_channel(1);
        Self {
            clock,
            wakes,
            sender,
        }
    }

    /// Ends the present or the next pause.
    pub fn waker(&self) -> Waker {
        let sender = self.sender.clone();
        Waker::new(move || {
            // A wake that waits to be noticed is enough.
            let _ = sender.try_send(());
        })
    }
}

impl Pause for Sleeper {
    fn pause(&mut self, deadline: Instant) {
        // Whether it was woken or is over: whoever pauses looks at the time and the stop flag.
        let _ = self.wakes.recv_timeout(deadline.since(self.clock.now()));
    }
}

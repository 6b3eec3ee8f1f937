//! The attempts of one session that have no answer yet, and how they get it.
//!
//! # Returns come with somebody else's confirm
//!
//! The broker sends back an unroutable message (`basic.return`) before it acknowledges it. lapin
//! puts returned messages into a queue, and each acknowledgement that comes in, for whichever
//! message, takes the oldest one along. With many messages in flight a return therefore comes out
//! of *some* confirm: of an earlier message, whose acknowledgement arrived between the return and
//! its own; or of a later one, when acknowledgements arrive out of order or many at once.
//!
//! So the returned message is identified by its own `message_id`, and an acknowledgement by itself
//! proves nothing: the return may be in a confirm that we have not looked at, or still be in
//! lapin's queue. An acknowledged attempt is *held* until it is known that its return would have
//! been seen. It is, when both of these are true:
//!
//! 1. Every confirm that was complete at some moment has been looked at: a *sweep*. [`Woken`]
//!    lists the confirms that have something to say, so a sweep ends when that list is empty.
//! 2. lapin's queue was empty at or after the attempt's acknowledgement. Then the attempt's
//!    return, which had come before, was taken by a confirm that (1) has looked at.
//!
//! A confirm without a return says that the queue is empty. So after a sweep in which no confirm
//! had one (the last of them included, whichever that is), every held attempt was routed. Without
//! unroutable messages that is every sweep, and nothing is ever held beyond one.
//!
//! The queue is also empty when no confirm is outstanding: since it was last empty, every return
//! in it has been followed by its own acknowledgement, and each took one. As the program stops
//! publishing at the latest when its window is full, held attempts get their answer in any case.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::Notify;

use crate::broker::{Event, Message, Tag};

/// What came with a confirm.
#[derive(Debug)]
pub(super) enum Acknowledgement {
    /// The broker has dealt with the message of this confirm. The return may be another's.
    Ack(Option<Return>),
    /// The broker could not take the message of this confirm. The return may be another's.
    Nack(Option<Return>),
}

/// A message that the broker sent back.
#[derive(Debug)]
pub(super) struct Return {
    /// Which message it is.
    pub(super) message_id: String,
    /// Why it came back, for people.
    pub(super) why: String,
}

/// Publishes a message on its first poll, then waits for its confirm.
pub(super) type Publication<E> =
    Pin<Box<dyn Future<Output = Result<Acknowledgement, E>> + Send + 'static>>;

/// See the module.
pub(super) struct Unanswered<E> {
    /// The attempts that the program has no answer to.
    attempts: BTreeMap<Tag, Attempt>,
    /// The confirms that have not come in. Outlives the attempt if its return was seen first.
    outstanding: BTreeMap<Tag, Outstanding<E>>,
    /// The attempts that are acknowledged, but may have been returned.
    held: Vec<Tag>,
    woken: Arc<Woken>,
}

struct Attempt {
    id: String,
    message: Arc<Message>,
}

struct Outstanding<E> {
    publication: Publication<E>,
    waker: Waker,
}

impl<E> Unanswered<E> {
    pub(super) fn new() -> Self {
        Self {
            attempts: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            held: Vec::new(),
            woken: Arc::default(),
        }
    }

    /// Adds an attempt. The next sweep publishes it, after all that were added before.
    pub(super) fn add(
        &mut self,
        tag: Tag,
        id: String,
        message: Arc<Message>,
        publication: Publication<E>,
    ) {
        let woken = Arc::clone(&self.woken);
        let waker = Waker::from(Arc::new(Wakeup { tag, woken }));
        waker.wake_by_ref();
        self.attempts.insert(tag, Attempt { id, message });
        let outstanding = Outstanding { publication, waker };
        self.outstanding.insert(tag, outstanding);
    }

    /// Completes when there is something to sweep.
    pub(super) fn woken(&self) -> impl Future<Output = ()> {
        self.woken.notify.notified()
    }

    /// Looks at every publication that has something to say, and hands the answers to `answer`.
    /// After an error, which is the session's end, the fate of the remaining attempts is unknown.
    pub(super) fn sweep(&mut self, answer: &mut dyn FnMut(Event)) -> Result<(), E> {
        let (mut acknowledgements, mut returns) = (0_usize, 0_usize);
        loop {
            let woken = self.woken.take();
            if woken.is_empty() {
                break;
            }
            for tag in woken {
                let Some(acknowledgement) = self.poll(tag)? else {
                    continue;
                };
                acknowledgements += 1;
                returns += usize::from(self.acknowledge(tag, acknowledgement, answer));
            }
        }
        let queue_was_empty = acknowledgements > 0 && returns == 0;
        if queue_was_empty || self.outstanding.is_empty() {
            self.release(answer);
        }
        Ok(())
    }

    fn poll(&mut self, tag: Tag) -> Result<Option<Acknowledgement>, E> {
        let Some(outstanding) = self.outstanding.get_mut(&tag) else {
            return Ok(None);
        };
        let mut context = Context::from_waker(&outstanding.waker);
        match outstanding.publication.as_mut().poll(&mut context) {
            Poll::Pending => Ok(None),
            Poll::Ready(result) => {
                self.outstanding.remove(&tag);
                result.map(Some)
            }
        }
    }

    /// Takes in what came with the confirm of `tag`; says whether there was a return.
    fn acknowledge(
        &mut self,
        tag: Tag,
        acknowledgement: Acknowledgement,
        answer: &mut dyn FnMut(Event),
    ) -> bool {
        let returned = match acknowledgement {
            Acknowledgement::Ack(returned) => {
                self.held.push(tag);
                returned
            }
            Acknowledgement::Nack(returned) => {
                if self.attempts.remove(&tag).is_some() {
                    let why = "the broker refused the message for now (nack); is a queue full?";
                    answer(Event::Rejected(tag, why.to_owned()));
                }
                returned
            }
        };
        let was_returned = returned.is_some();
        if let Some(Return { message_id, why }) = returned
            && let Some(tag) = self.oldest_attempt(&message_id)
        {
            self.attempts.remove(&tag);
            answer(Event::Returned(tag, why));
        }
        was_returned
    }

    /// Searches all attempts, because returns are rare, and mostly of the oldest.
    fn oldest_attempt(&self, id: &str) -> Option<Tag> {
        let (tag, _) = self.attempts.iter().find(|(_, attempt)| attempt.id == id)?;
        Some(*tag)
    }

    fn release(&mut self, answer: &mut dyn FnMut(Event)) {
        for tag in self.held.drain(..) {
            if self.attempts.remove(&tag).is_some() {
                answer(Event::Confirmed(tag));
            }
        }
    }

    /// Answers the attempts whose body has more than `limit` bytes with `Refused`.
    pub(super) fn refuse_larger(&mut self, limit: usize, why: &str, answer: &mut dyn FnMut(Event)) {
        let is_larger = |attempt: &Attempt| attempt.message.body.len() > limit;
        for (tag, _) in self
            .attempts
            .extract_if(.., |_, attempt| is_larger(attempt))
        {
            answer(Event::Refused(tag, why.to_owned()));
        }
    }
}

impl<E> fmt::Debug for Unanswered<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unanswered")
            .field("attempts", &self.attempts.len())
            .field("outstanding", &self.outstanding.len())
            .field("held", &self.held.len())
            .finish()
    }
}

/// The publications that have something to say, in the order in which they said so.
///
/// Not a `FuturesUnordered`, which does not tell "nothing left" from "enough for now", and whose
/// order of first polls, which is the order of publishing, is not part of its contract.
#[derive(Default)]
struct Woken {
    tags: Mutex<Vec<Tag>>,
    notify: Notify,
}

impl Woken {
    fn push(&self, tag: Tag) {
        let mut tags = self.lock();
        tags.push(tag);
        let is_first = tags.len() == 1;
        drop(tags);
        if is_first {
            self.notify.notify_one();
        }
    }

    fn take(&self) -> Vec<Tag> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tag>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The waker of one publication.
struct Wakeup {
    tag: Tag,
    woken: Arc<Woken>,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.push(self.tag);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::*;
    use crate::broker::Subject;
    use crate::dump::Kind;

    fn message(bytes: usize) -> Arc<Message> {
        Arc::new(Message {
            version: "20260801".parse().unwrap(),
            route: Kind::Labels,
            subject: Subject::FileComplete,
            sequence: 1,
            sha256: String::new(),
            body: vec![b' '; bytes].into(),
        })
    }

    /// One thing that happens between the program, lapin and the broker.
    #[derive(Clone, Debug)]
    enum Step {
        /// The program publishes, a message that was returned before if there is one to retry.
        Publish { routable: bool, retry: bool },
        /// The broker takes the next message; lapin queues its return if it is unroutable.
        Route,
        /// The broker acknowledges a message that it took, or all up to it. `order` stands for
        /// that of the hash map from which lapin takes the confirms.
        Acknowledge {
            which: prop::sample::Index,
            multiple: bool,
            ack: bool,
            order: u64,
        },
        /// The program looks at what is there.
        Sweep,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (any::<bool>(), any::<bool>())
                .prop_map(|(routable, retry)| Step::Publish { routable, retry }),
            4 => Just(Step::Route),
            3 => (any::<prop::sample::Index>(), any::<bool>(), prop::bool::weighted(0.9), 1..100_u64)
                .prop_map(|(which, multiple, ack, order)| {
                    Step::Acknowledge { which, multiple, ack, order }
                }),
            2 => Just(Step::Sweep),
        ];
        prop::collection::vec(step, 0..60)
    }

    type Confirm = oneshot::Sender<Acknowledgement>;

    /// lapin and a broker, as far as confirms and returns go.
    struct World {
        unanswered: Unanswered<oneshot::error::RecvError>,
        published: u64,
        /// Published, not taken by the broker.
        sent: VecDeque<(Tag, String, bool, Confirm)>,
        /// Taken by the broker, not acknowledged.
        routed: BTreeMap<Tag, Confirm>,
        /// lapin's queue.
        returns: VecDeque<String>,
        unroutable: BTreeSet<Tag>,
        nacked: BTreeSet<Tag>,
        retriable: Vec<String>,
        identities: BTreeMap<Tag, String>,
        answers: BTreeMap<Tag, Event>,
    }

    impl World {
        fn new() -> Self {
            Self {
                unanswered: Unanswered::new(),
                published: 0,
                sent: VecDeque::new(),
                routed: BTreeMap::new(),
                returns: VecDeque::new(),
                unroutable: BTreeSet::new(),
                nacked: BTreeSet::new(),
                retriable: Vec::new(),
                identities: BTreeMap::new(),
                answers: BTreeMap::new(),
            }
        }

        fn step(&mut self, step: &Step) {
            match *step {
                Step::Publish { routable, retry } => self.publish(routable, retry),
                Step::Route => self.route(),
                Step::Acknowledge {
                    which,
                    multiple,
                    ack,
                    order,
                } => self.acknowledge(which, multiple, ack, order),
                Step::Sweep => self.sweep(),
            }
        }

        fn publish(&mut self, routable: bool, retry: bool) {
            self.published += 1;
            let tag = Tag(self.published);
            let retried = retry.then(|| self.retriable.pop()).flatten();
            let id = retried.unwrap_or_else(|| format!("first attempt {}", self.published));
            let (confirm, receiver) = oneshot::channel();
            self.unanswered
                .add(tag, id.clone(), message(1), Box::pin(receiver));
            self.identities.insert(tag, id.clone());
            self.sent.push_back((tag, id, routable, confirm));
        }

        fn route(&mut self) {
            let Some((tag, id, routable, confirm)) = self.sent.pop_front() else {
                return;
            };
            if !routable {
                self.unroutable.insert(tag);
                self.returns.push_back(id);
            }
            self.routed.insert(tag, confirm);
        }

        fn acknowledge(
            &mut self,
            which: prop::sample::Index,
            multiple: bool,
            ack: bool,
            order: u64,
        ) {
            let tags: Vec<_> = self.routed.keys().copied().collect();
            if tags.is_empty() {
                return;
            }
            let last = which.index(tags.len());
            let mut tags = tags[if multiple { 0 } else { last }..=last].to_vec();
            tags.sort_by_key(|tag| tag.0 * order % 101);
            // RabbitMQ refuses only messages that it routed.
            let ack = ack || tags.iter().any(|tag| self.unroutable.contains(tag));
            for tag in tags {
                self.complete(tag, ack);
            }
        }

        fn complete(&mut self, tag: Tag, ack: bool) {
            let returned = self.returns.pop_front().map(|message_id| Return {
                message_id,
                why: String::new(),
            });
            let confirm = self.routed.remove(&tag).unwrap();
            let acknowledgement = if ack {
                Acknowledgement::Ack(returned)
            } else {
                self.nacked.insert(tag);
                Acknowledgement::Nack(returned)
            };
            confirm.send(acknowledgement).unwrap();
        }

        fn sweep(&mut self) {
            let mut events = Vec::new();
            self.unanswered
                .sweep(&mut |event| events.push(event))
                .unwrap();
            for event in events {
                self.take(event);
            }
        }

        fn take(&mut self, event: Event) {
            let (Event::Confirmed(tag) | Event::Rejected(tag, _) | Event::Returned(tag, _)) = event
            else {
                panic!("{event:?} is not an answer");
            };
            let expected = match event {
                Event::Confirmed(_) => {
                    !self.unroutable.contains(&tag) && !self.nacked.contains(&tag)
                }
                Event::Rejected(..) => self.nacked.contains(&tag),
                _ => self.unroutable.contains(&tag),
            };
            assert!(expected, "{event:?}");
            if matches!(event, Event::Returned(..)) {
                self.retriable.push(self.identities[&tag].clone());
            }
            assert_eq!(self.answers.insert(tag, event), None, "answered twice");
        }

        /// Lets everything that is on its way arrive.
        fn settle(&mut self) {
            while !self.sent.is_empty() {
                self.route();
            }
            while let Some((tag, _)) = self.routed.last_key_value() {
                self.complete(*tag, true);
            }
            self.sweep();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_attempt_gets_its_own_answer_whatever_confirm_brings_a_return(steps in steps()) {
            let mut world = World::new();
            for step in steps {
                world.step(&step);
            }
            world.settle();
            prop_assert_eq!(world.answers.len() as u64, world.published);
        }
    }

    #[test]
    fn nothing_is_held_back_without_returns() {
        let mut world = World::new();
        for _ in 0..2 {
            world.publish(true, false);
            world.route();
        }
        world.sweep();
        world.complete(Tag(1), true);
        world.sweep();
        assert_eq!(world.answers.len(), 1);
    }

    #[test]
    fn a_sweep_includes_what_happens_while_it_goes_on() {
        let mut unanswered = Unanswered::new();
        let (confirm, receiver) = oneshot::channel();
        unanswered.add(Tag(2), "2".to_owned(), message(1), Box::pin(receiver));
        unanswered.sweep(&mut |_| {}).unwrap();

        // The return of 1 arrives with the confirm of 2, just before the confirm of 1 is seen.
        let publication = Box::pin(async move {
            let (message_id, why) = ("1".to_owned(), String::new());
            let returned = Return { message_id, why };
            confirm.send(Acknowledgement::Ack(Some(returned))).unwrap();
            Ok(Acknowledgement::Ack(None))
        });
        unanswered.add(Tag(1), "1".to_owned(), message(1), publication);
        let mut answers = Vec::new();
        unanswered.sweep(&mut |event| answers.push(event)).unwrap();
        let returned = Event::Returned(Tag(1), String::new());
        assert_eq!(answers, [returned, Event::Confirmed(Tag(2))]);
    }

    #[test]
    fn publishing_keeps_the_order() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut unanswered = Unanswered::<()>::new();
        for number in [2, 3, 1] {
            let order = Arc::clone(&order);
            let publication = Box::pin(async move {
                order.lock().unwrap().push(number);
                Ok(Acknowledgement::Ack(None))
            });
            unanswered.add(Tag(number), number.to_string(), message(1), publication);
        }
        unanswered.sweep(&mut |_| {}).unwrap();
        assert_eq!(*order.lock().unwrap(), [2, 3, 1]);
    }

    #[test]
    fn only_messages_above_the_limit_are_refused() {
        let mut unanswered = Unanswered::<()>::new();
        for bytes in [9, 10, 11] {
            let publication = Box::pin(std::future::pending());
            let (tag, id) = (Tag(bytes), bytes.to_string());
            unanswered.add(tag, id, message(bytes as usize), publication);
        }
        let mut answers = Vec::new();
        unanswered.refuse_larger(10, "why", &mut |event| answers.push(event));
        assert_eq!(answers, [Event::Refused(Tag(11), "why".to_owned())]);
    }
}

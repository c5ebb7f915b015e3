//! The store against a simple model: one list of all messages, from which things are taken out.

use super::*;
use proptest::prelude::*;

impl<M: Payload> Store<M> {
    /// With the next offset, now.
    fn publish(
        &mut self,
        now: u64,
        name: &str,
        history: History,
        make: impl FnOnce(&Id) -> M,
    ) -> Result<Published, CapacityError> {
        self.publish_at(now, now, self.sequence + 1, name, history, make)
    }
}

impl Payload for Vec<u8> {
    fn size(&self) -> usize {
        self.len()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish { channel: usize, size: usize, history: History },
    Subscribe { channel: usize, shard: usize, member: Option<usize> },
    Unsubscribe { which: usize },
    Delete { channel: usize },
    Wait { milliseconds: u64 },
    Sweep,
}

const NAMES: [&str; 4] = ["a", "room/1", "room/2", "room/2/x"];
const MEMBERS: [&str; 2] = ["ann", "joe"];
const BYTES: usize = 100;

fn step() -> impl Strategy<Value = Step> {
    let channel = 0..NAMES.len();
    prop_oneof![
        5 => (channel.clone(), 0usize..40, 0u32..6, 0u32..4).prop_map(|(channel, size, messages, seconds)| {
            Step::Publish { channel, size, history: History { messages, seconds } }
        }),
        2 => (channel.clone(), 0usize..3, prop::option::of(0..MEMBERS.len()))
            .prop_map(|(channel, shard, member)| Step::Subscribe { channel, shard, member }),
        2 => any::<usize>().prop_map(|which| Step::Unsubscribe { which }),
        1 => channel.prop_map(|channel| Step::Delete { channel }),
        2 => prop_oneof![0u64..3000, Just(REMEMBERED)].prop_map(|milliseconds| Step::Wait { milliseconds }),
        1 => Just(Step::Sweep),
    ]
}

/// All that was ever published, and what of it is kept.
#[derive(Default)]
struct Model {
    now: u64,
    published: Vec<(usize, Item<Vec<u8>>)>,
    kept: Vec<u64>,
    histories: [Option<History>; NAMES.len()],
    subscribers: Vec<(usize, usize, Option<usize>)>,
}

impl Model {
    fn drop_if(&mut self, condition: impl Fn(&Model, usize, &Item<Vec<u8>>) -> bool) {
        let kept = std::mem::take(&mut self.kept);
        let left = kept.iter().copied().filter(|offset| {
            let (channel, item) = &self.published[*offset as usize - 1];
            !condition(self, *channel, item)
        });
        self.kept = left.collect();
    }

    fn expire(&mut self) {
        self.drop_if(|model, channel, item| {
            let seconds = model.histories[channel].map_or(0, |history| history.seconds);
            item.time + u64::from(seconds) * 1000 <= model.now
        });
    }

    fn of(&self, channel: usize) -> Vec<&Item<Vec<u8>>> {
        let published = self.published.iter().filter(|(its, _)| *its == channel).map(|(_, item)| item);
        published.filter(|item| self.kept.contains(&item.offset)).collect()
    }

    fn publish(&mut self, channel: usize, size: usize, history: History) {
        let offset = self.published.len() as u64 + 1;
        self.published.push((channel, Item { offset, time: self.now, message: vec![7; size] }));
        self.histories[channel] = Some(history);
        self.kept.push(offset);
        let kept: Vec<u64> = self.of(channel).iter().map(|item| item.offset).collect();
        let too_many = kept.len().saturating_sub(history.messages as usize);
        let too_many = if history.seconds == 0 { kept.len() } else { too_many };
        self.kept.retain(|offset| !kept[..too_many].contains(offset));
        while self.bytes() > BYTES {
            self.kept.remove(0);
        }
        self.expire();
    }

    fn bytes(&self) -> usize {
        self.kept.iter().map(|offset| self.published[*offset as usize - 1].1.message.len()).sum()
    }
}

fn run(steps: Vec<Step>, channels: usize) -> Result<(), TestCaseError> {
    let mut store = Store::<Vec<u8>>::new("e", StoreLimits { channels, bytes: BYTES });
    let mut model = Model::default();
    // With as many channels as there may be, the store may drop and forget what the model has.
    let is_exact = channels >= NAMES.len();
    for step in steps {
        let now = model.now;
        match step {
            Step::Publish { channel, size, history } => {
                let published = store.publish(now, NAMES[channel], history, |_| vec![7; size]);
                let Ok(published) = published else {
                    prop_assert!(!is_exact);
                    continue;
                };
                model.publish(channel, size, history);
                let there = model.subscribers.iter().filter(|(its, ..)| *its == channel);
                let shards: BTreeSet<usize> = there.clone().map(|(_, shard, _)| *shard).collect();
                prop_assert_eq!(published.offset, model.published.len() as u64);
                prop_assert_eq!(published.subscribers, there.count() as u64);
                prop_assert_eq!(published.shards.len(), shards.len());
                prop_assert_eq!(published.shards.into_iter().collect::<BTreeSet<_>>(), shards);
            }
            Step::Subscribe { channel, shard, member } => {
                let name = member.map(|member| MEMBERS[member]);
                let Ok(joined) = store.subscribe(now, shard, NAMES[channel], name) else {
                    prop_assert!(!is_exact);
                    continue;
                };
                let is_new = !model.subscribers.iter().any(|(its, _, known)| *its == channel && *known == member);
                prop_assert_eq!(joined, member.is_some() && is_new);
                model.subscribers.push((channel, shard, member));
            }
            Step::Unsubscribe { which } if !model.subscribers.is_empty() => {
                let (channel, shard, member) = model.subscribers.swap_remove(which % model.subscribers.len());
                let left = store.unsubscribe(now, shard, NAMES[channel], member.map(|member| MEMBERS[member]));
                let is_there = model.subscribers.iter().any(|(its, _, known)| *its == channel && *known == member);
                prop_assert_eq!(left, member.is_some() && !is_there);
            }
            Step::Unsubscribe { .. } => {}
            Step::Delete { channel } => {
                store.delete(now, NAMES[channel]);
                model.drop_if(|_, its, _| its == channel);
            }
            Step::Wait { milliseconds } => {
                model.now += milliseconds;
                model.expire();
            }
            Step::Sweep => store.sweep(now),
        }
        check(&mut store, &model, is_exact)?;
    }
    Ok(())
}

fn check(store: &mut Store<Vec<u8>>, model: &Model, is_exact: bool) -> Result<(), TestCaseError> {
    let now = model.now;
    prop_assert!(store.bytes <= BYTES);
    let names: Vec<Arc<str>> = NAMES.iter().map(|name| (*name).into()).collect();
    for (channel, name) in names.iter().enumerate() {
        let count = model.subscribers.iter().filter(|(its, ..)| *its == channel).count();
        let info = store.info(now, name);
        prop_assert_eq!(info.as_ref().map_or(0, |info| info.subscribers), count as u64);
        if is_exact {
            prop_assert_eq!(info.map_or(0, |info| info.messages), model.of(channel).len());
        }
        let members: BTreeMap<&str, u32> =
            model.subscribers.iter().filter(|(its, ..)| *its == channel).fold(BTreeMap::new(), |mut all, who| {
                if let Some(member) = who.2 {
                    *all.entry(MEMBERS[member]).or_default() += 1;
                }
                all
            });
        let there: Vec<(Arc<str>, u32)> = store.members(name);
        prop_assert_eq!(there.iter().map(|(name, count)| (&**name, *count)).collect::<BTreeMap<_, _>>(), members);
    }
    for after in 0..=model.published.len() as u64 {
        // One channel, and all of them.
        for (chosen, channels) in [(&names[..1], 0..1), (&names[..], 0..NAMES.len())] {
            let recovers = store.recovers(now, chosen, &store.id(after));
            let (mut at, mut got) = (after, Vec::new());
            loop {
                let page = store.page(now, chosen, at, 30);
                prop_assert_eq!(page.last_lost.iter().all(|last_lost| *last_lost <= after), recovers);
                got.extend(page.items.iter().map(|(_, item)| item.offset));
                at = got.last().copied().unwrap_or(at);
                if page.is_last {
                    break;
                }
            }
            let later = model.published.iter().filter(|(its, item)| channels.contains(its) && item.offset > after);
            let later: Vec<u64> = later.map(|(_, item)| item.offset).collect();
            if recovers {
                prop_assert_eq!(&got, &later, "after {} something is not there that was promised", after);
            }
            if is_exact {
                let kept = later.into_iter().filter(|offset| model.kept.contains(offset));
                prop_assert_eq!(got, kept.collect::<Vec<_>>());
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn it_keeps_what_the_model_keeps(steps in prop::collection::vec(step(), 0..60)) {
        run(steps, 10)?;
    }

    #[test]
    fn it_is_honest_when_channels_are_few(steps in prop::collection::vec(step(), 0..60)) {
        run(steps, 2)?;
    }
}

const KEPT: History = History { messages: 10, seconds: 10 };

#[test]
fn an_id_of_another_epoch_or_of_the_future_tells_nothing() {
    let mut store = Store::<Vec<u8>>::new("new", StoreLimits { channels: 10, bytes: 100 });
    store.publish(0, "a", KEPT, |_| vec![1]).unwrap();
    assert!(store.recovers(0, &["a"], &"new:0".parse().unwrap()));
    assert!(!store.recovers(0, &["a"], &"old:0".parse().unwrap()));
    assert!(!store.recovers(0, &["a"], &"new:2".parse().unwrap()));
}

#[test]
fn a_forgotten_channel_is_not_said_to_be_whole() {
    let mut store = Store::<Vec<u8>>::new("e", StoreLimits { channels: 10, bytes: 100 });
    store.publish(0, "a", KEPT, |_| vec![1]).unwrap();
    assert!(store.recovers(5000, &["a"], &"e:0".parse().unwrap()));
    assert!(!store.recovers(10_000, &["a"], &"e:0".parse().unwrap()));
    store.sweep(REMEMBERED);
    assert_eq!(store.info(REMEMBERED, "a"), None);
    assert!(!store.recovers(REMEMBERED, &["a"], &"e:0".parse().unwrap()));
    assert!(store.recovers(REMEMBERED, &["a"], &"e:1".parse().unwrap()));
    // The same is said when somebody has subscribed meanwhile.
    store.subscribe(REMEMBERED, 0, "a", None).unwrap();
    assert!(!store.recovers(REMEMBERED, &["a"], &"e:0".parse().unwrap()));
}

#[test]
fn what_there_was_no_room_for_is_not_said_to_be_whole() {
    let mut store = Store::<Vec<u8>>::new("e", StoreLimits { channels: 1, bytes: 100 });
    store.subscribe(0, 0, "a", None).unwrap();
    assert_eq!(store.publish_at(0, 0, 1, "b", KEPT, |_| vec![1]), Err(CapacityError));
    store.skip(1);
    store.publish_at(0, 0, 2, "a", KEPT, |_| vec![1]).unwrap();
    assert!(store.recovers(0, &["a"], &"e:0".parse().unwrap()), "that channel has lost nothing");
    assert!(!store.recovers(0, &["b"], &"e:0".parse().unwrap()));
    assert!(store.recovers(0, &["b"], &"e:1".parse().unwrap()));
}

#[test]
fn channels_are_listed_by_prefix_in_pages() {
    let mut store = Store::<Vec<u8>>::new("e", StoreLimits { channels: 10, bytes: 100 });
    for name in ["b", "a/2", "a/1", "a", "a/3", "c"] {
        store.publish(0, name, KEPT, |_| vec![1]).unwrap();
    }
    let mut names = |prefix: &str, after: &str, limit| {
        let (page, more) = store.list(0, prefix, after, limit);
        (page.iter().map(|info| info.channel.to_string()).collect::<Vec<_>>().join(" "), more)
    };
    assert_eq!(names("a/", "", 2), ("a/1 a/2".into(), true));
    assert_eq!(names("a/", "a/2", 2), ("a/3".into(), false));
    assert_eq!(names("", "", 100), ("a a/1 a/2 a/3 b c".into(), false));
    assert_eq!(names("", "b", 100), ("c".into(), false));
    assert_eq!(names("x", "a", 100), (String::new(), false));
    store.delete(0, "b").unwrap();
    assert_eq!(store.delete(0, "b"), None);
    assert_eq!(store.list(0, "b", "", 9), (vec![], false));
}

#[test]
fn the_channel_that_was_used_longest_ago_makes_room() {
    let mut store = Store::<Vec<u8>>::new("e", StoreLimits { channels: 2, bytes: 100 });
    store.publish(0, "old", KEPT, |_| vec![1]).unwrap();
    store.publish(1, "new", KEPT, |_| vec![1]).unwrap();
    store.subscribe(2, 0, "old", None).unwrap();
    store.publish(3, "third", KEPT, |_| vec![1]).unwrap();
    assert_eq!(store.info(3, "new"), None);
    store.subscribe(4, 0, "third", None).unwrap();
    assert_eq!(store.publish(5, "fourth", KEPT, |_| vec![1]), Err(CapacityError));
    assert_eq!(store.subscribe(5, 0, "fourth", None), Err(CapacityError));
    assert_eq!(store.sequence(), 3, "what was refused has no number");
}

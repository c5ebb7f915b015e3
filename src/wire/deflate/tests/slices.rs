//! What is done in slices comes to the same as what is done at once.

use super::inflater::Inflater;
use super::*;

/// A message as it goes out: its compressed form, where it has one, and in how many slices that was made.
fn encoded(sender: &mut PerMessageDeflate, pool: &mut DeflatePool, payload: &Bytes) -> (Option<Bytes>, usize) {
    let Some(mut slices) = sender.begin(pool, payload) else { return (sender.compress(pool, payload), 1) };
    let mut count = 1;
    while !slices.step() {
        count += 1;
    }
    (sender.end(pool, slices), count)
}

fn any_length() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..3000, 1usize..100_000, (0usize..10).prop_map(|n| n << 14), Just(200_001)]
}

fn any_large() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any_length().prop_map(prose),
        any_length().prop_map(noise),
        any_length().prop_map(|length| vec![7; length]),
        (any_length(), any_length()).prop_map(|(first, second)| [noise(first), prose(second), noise(first)].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Others than zlib understand it, and it refers no further back than was agreed.
    #[test]
    fn slices_add_up_to_the_message(
        parameters in any_parameters(),
        level in 1u8..=9,
        messages in prop::collection::vec(any_large(), 1..4),
    ) {
        let mut pool = DeflatePool::default();
        let mut sender = PerMessageDeflate::new(Compression { level, ..compression(parameters) });
        let mut inflater = Inflater::default();
        for payload in messages {
            let payload = Bytes::from(payload);
            let (short, slices) = encoded(&mut sender, &mut pool, &payload);
            if let Some(short) = short {
                prop_assert!(slices == 1 || slices == payload.len().div_ceil(Slices::slice(level)));
                if parameters.server_no_context_takeover {
                    inflater = Inflater::default();
                    prop_assert!(short.len() < payload.len());
                }
                let whole = inflater.message(&[&short[..], &TAIL].concat(), 1 << parameters.server_max_window_bits);
                prop_assert!(whole.is_some_and(|whole| whole == payload));
            } else {
                prop_assert!(parameters.server_no_context_takeover || payload.is_empty());
            }
        }
    }

    /// Whatever the pieces in which it comes.
    #[test]
    fn what_is_inflated_in_slices_is_what_was_sent(
        parameters in any_parameters(),
        messages in prop::collection::vec(any_large(), 1..4),
        piece in prop_oneof![1usize..2000, Just(1 << 20)],
        chunk in prop_oneof![1000usize..200_000, Just(1 << 20)],
    ) {
        let mut client = Client::new(parameters, piece);
        let bytes: Vec<u8> = messages.iter().flat_map(|payload| client.message(false, payload, true)).collect();
        let mut test = DeflateSession::large(parameters, LIMIT * 4);
        for part in bytes.chunks(chunk) {
            test.receive(part);
        }
        let sent: Vec<Message> = messages.iter().map(|payload| Message::binary(payload.clone())).collect();
        prop_assert!(test.messages() == sent);
        prop_assert!(!test.session.is_in_a_message() && !test.session.has_more());
    }

    /// The limit holds to the byte, wherever a slice ends.
    #[test]
    fn limits_hold_in_slices(length in 50_000usize..400_000, over in prop_oneof![Just(0usize), Just(1), 2usize..300_000]) {
        let mut client = Client::new(PARAMETERS, 1 << 20);
        let bytes = client.message(false, &prose(length + over), true);
        let mut test = DeflateSession::large(PARAMETERS, length);
        test.receive(&bytes);
        if over == 0 {
            prop_assert_eq!(test.messages().len(), 1);
        } else {
            prop_assert_eq!(test.failure(), CloseCode::Size);
        }
        prop_assert!(!test.session.has_more());
    }
}

/// Of a large message a slice takes as long as of any other; and that it is compressed in blocks costs little.
#[test]
fn slices_are_small_at_every_level() {
    let payload = Bytes::from(prose(500_000));
    for level in 1..=9 {
        let mut pool = DeflatePool::default();
        let mut sender = PerMessageDeflate::new(Compression { level, ..compression(PARAMETERS) });
        assert!(sender.is_large(Slices::at_once(level) + 1) && !sender.is_large(Slices::at_once(level)));
        let (short, slices) = encoded(&mut sender, &mut pool, &payload);
        assert_eq!(slices, payload.len().div_ceil(Slices::slice(level)));
        let whole = sender.compress(&mut pool, &payload).unwrap();
        let short = short.unwrap().len();
        assert!(short <= whole.len() + whole.len() / 20, "{level}: {short} and not {}", whole.len());
    }
}

/// Of a message that becomes large, others have their turn in between.
#[test]
fn a_large_message_is_inflated_in_slices() {
    const SIZE: usize = 5_000_000;
    let mut client = Client::new(PARAMETERS, 1 << 30);
    let bytes = client.message(false, &vec![b'x'; SIZE], true);
    assert!(bytes.len() < 10_000);
    let mut test = DeflateSession::large(PARAMETERS, SIZE);
    test.session.receive(&mut test.contexts, &bytes, &mut test.events, &mut test.out);
    let mut slices = 1;
    while test.session.has_more() {
        let before = test.session.inflated();
        test.session.more(&mut test.contexts, &mut test.events, &mut test.out);
        assert!(test.session.inflated() <= before + Session::SLICE as u64 + 4096);
        slices += 1;
    }
    assert!(slices >= SIZE / (Session::SLICE + 4096), "{slices}");
    assert_eq!(test.messages(), [Message::binary(vec![b'x'; SIZE])]);
}

/// The client's Close, in the middle of what is still to be decoded, comes after it; and what follows it is not looked at.
#[test]
fn a_close_behind_a_large_message_is_in_order() {
    let mut client = Client::new(PARAMETERS, 1 << 20);
    let mut bytes = client.message(false, &prose(200_000), true);
    bytes.extend(frames(0x88, &1000u16.to_be_bytes(), 10));
    bytes.extend(client.message(false, &prose(200_000), true));
    let mut test = DeflateSession::new(PARAMETERS);
    test.session.receive(&mut test.contexts, &bytes, &mut test.events, &mut test.out);
    assert!(test.session.has_more() && test.events.is_empty());
    while test.session.has_more() {
        test.session.more(&mut test.contexts, &mut test.events, &mut test.out);
    }
    assert_eq!(test.events.len(), 2);
    assert!(matches!(&test.events[0], Event::Message(message) if message.len() == 200_000));
    assert!(matches!(&test.events[1], Event::Closed(Some(frame)) if frame.code == CloseCode::Normal));
}

//! Texts and bytes are inverses; a changed text is refused.

use proptest::prelude::*;

use super::{CaseCost, cases};
use crate::environment::Environment;
use crate::id::{Epoch, KeyId, WorkspaceId};
use crate::key_text::{ForeignKeys, Kind, PresentedKey, compose, is_token};
use crate::position::ChainHash;

fn environment() -> impl Strategy<Value = Environment> {
    "[a-z][a-z0-9]{0,9}".prop_map(|name| name.parse().unwrap())
}

/// A source of bytes that cycles through `bytes` and a 0, so that it always gives fair ones.
fn cycling(bytes: Vec<u8>) -> impl FnMut(&mut [u8]) -> Result<(), std::convert::Infallible> {
    let mut source = bytes.into_iter().chain([0]).collect::<Vec<_>>().into_iter().cycle();
    move |filled| {
        filled.iter_mut().zip(&mut source).for_each(|(byte, next)| *byte = next);
        Ok(())
    }
}

proptest! {
    #![proptest_config(cases(CaseCost::Low))]

    #[test]
    fn a_composed_key_is_parsed_and_names_its_environment(
        environment in environment(), other in environment(), bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let text = compose(&Kind::Key(environment.clone()), cycling(bytes)).unwrap();
        let parsed = PresentedKey::parse(text.as_bytes(), ForeignKeys::Refused).ok();
        prop_assert_eq!(parsed.map(|key| key.text()), Some(text.as_bytes()));
        prop_assert_eq!(parsed.map(|key| key.is_for_another(&environment)), Some(false));
        prop_assert_eq!(parsed.map(|key| key.is_for_another(&other)), Some(other != environment));
        prop_assert!(is_token(&text, &Kind::Key(environment)) && text.len() <= 55);
    }

    #[test]
    fn a_key_with_one_byte_changed_added_or_left_out_is_malformed(
        environment in environment(), bytes in prop::collection::vec(any::<u8>(), 80),
        at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let text = compose(&Kind::Key(environment), cycling(bytes)).unwrap().into_bytes();
        let at = at.index(text.len());
        let is_malformed = |text: &[u8]| PresentedKey::parse(text, ForeignKeys::Refused).is_err();
        let mut changed = text.clone();
        changed[at] = byte;
        prop_assert_eq!(is_malformed(&changed), byte != text[at]);
        let mut longer = text.clone();
        longer.insert(at, byte);
        prop_assert!(is_malformed(&longer));
        let mut shorter = text.clone();
        shorter.remove(at);
        prop_assert!(is_malformed(&shorter));
    }

    #[test]
    fn bytes_that_are_parsed_as_a_key_are_its_text(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for foreign in [ForeignKeys::Refused, ForeignKeys::LookedUp] {
            if let Ok(key) = PresentedKey::parse(&bytes, foreign) {
                prop_assert_eq!(key.text(), &bytes[..]);
                prop_assert!(foreign == ForeignKeys::LookedUp && bytes.len() <= 256);
            }
        }
    }

    #[test]
    fn a_token_is_of_its_own_kind_only(bytes in prop::collection::vec(any::<u8>(), 80)) {
        let kinds = [Kind::AdminToken, Kind::EdgeToken, Kind::Key(Environment::default())];
        for kind in &kinds {
            let text = compose(kind, cycling(bytes.clone())).unwrap();
            for other in &kinds {
                prop_assert_eq!(is_token(&text, other), other == kind);
            }
        }
    }

    #[test]
    fn ids_and_chain_hashes_have_one_text(id in any::<[u8; 16]>(), head in any::<[u8; 32]>()) {
        prop_assert_eq!(KeyId::from_bytes(id).to_string().parse(), Ok(KeyId::from_bytes(id)));
        prop_assert_eq!(WorkspaceId::from_bytes(id).to_string().parse(), Ok(WorkspaceId::from_bytes(id)));
        prop_assert_eq!(Epoch::from_bytes(id).to_string().parse(), Ok(Epoch::from_bytes(id)));
        prop_assert_eq!(ChainHash(head).to_string().parse(), Ok(ChainHash(head)));
        prop_assert!(KeyId::from_bytes(id).to_string().parse::<WorkspaceId>().is_err());
    }

    #[test]
    fn a_text_parsed_as_an_id_or_a_chain_hash_is_written_the_same(
        text in "(key_)?[0-9a-fA-F]{31,33}", hash in "[0-9a-fA-F]{63,65}", noise in any::<String>(),
    ) {
        for text in [&text, &hash, &noise] {
            if let Ok(id) = text.parse::<KeyId>() {
                prop_assert_eq!(&id.to_string(), text);
            }
            if let Ok(epoch) = text.parse::<Epoch>() {
                prop_assert_eq!(&epoch.to_string(), text);
            }
            if let Ok(head) = text.parse::<ChainHash>() {
                prop_assert_eq!(&head.to_string(), text);
            }
        }
    }
}

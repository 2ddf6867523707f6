//! xinetd's lists of addresses as rules of an access list.

use std::net::{IpAddr, Ipv4Addr};

/// A word of `only_from` or `no_access` as a prefix: an address, `A.B.C.D/BITS`, numbers whose last
/// zeros stand for everything (`10.0.0.0`), fewer than four numbers (`10.1.`), factors (`10.1.{2,3}`)
/// which come to several. `None` for names, which are not looked up.
pub fn prefixes(word: &str) -> Option<Vec<String>> {
    if let Some((address, bits)) = word.split_once('/') {
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= most)?;
        return Some(vec![format!("{address}/{bits}")]);
    }
    if let Ok(IpAddr::V6(address)) = word.parse() {
        let all = address.is_unspecified();
        return Some(vec![if all {
            "::/0".into()
        } else {
            address.to_string()
        }]);
    }
    let (fixed, factors) = match word.split_once('{') {
        Some((fixed, factors)) => (fixed, factors.strip_suffix('}')?.split(',').collect()),
        None => (word, vec![""]),
    };
    let has_factors = word.contains('{');
    let prefix = |factor: &str| {
        let text = format!("{fixed}{factor}");
        let parts: Vec<u8> = text
            .trim_end_matches('.')
            .split('.')
            .map(|part| part.trim().parse().ok())
            .collect::<Option<_>>()?;
        let given = parts.len();
        if given > 4 {
            return None;
        }
        let mut octets = [0; 4];
        octets[..given].copy_from_slice(&parts);
        // Zeros at the end are wildcards, unless they were written as a factor.
        let zeros = octets.iter().rev().take_while(|octet| **octet == 0).count();
        let significant = if has_factors {
            given
        } else {
            given.min(4 - zeros)
        };
        let address = Ipv4Addr::from(octets);
        Some(format!("{address}/{}", significant * 8))
    };
    factors.into_iter().map(prefix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_a_prefix_and_a_name_is_none() {
        for (word, expected) in [
            ("192.0.2.7", vec!["192.0.2.7/32"]),
            ("10.0.0.0", vec!["10.0.0.0/8"]),
            ("10.1.0.0/12", vec!["10.1.0.0/12"]),
            ("0.0.0.0", vec!["0.0.0.0/0"]),
            ("10.1.", vec!["10.1.0.0/16"]),
            (
                "128.138.{12,13}",
                vec!["128.138.12.0/24", "128.138.13.0/24"],
            ),
            ("10.0.0.{0,7}", vec!["10.0.0.0/32", "10.0.0.7/32"]),
            ("2001:db8::/32", vec!["2001:db8::/32"]),
            ("::1", vec!["::1"]),
            ("::", vec!["::/0"]),
        ] {
            assert_eq!(prefixes(word).unwrap(), expected, "{word}");
        }
        for word in [
            ".example.org",
            "host",
            "10.0.0.0/33",
            "1.2.3.4.5",
            "300.1.1.1",
            "{1",
            "",
        ] {
            assert!(prefixes(word).is_none(), "{word}");
        }
    }
}

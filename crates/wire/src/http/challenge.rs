//! What a server demands of who is not known to it: `WWW-Authenticate` (RFC 9110, 11.6.1).

/// One challenge: a scheme, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Challenge {
    /// The scheme as it was spelled, such as `Digest`; case does not count.
    pub scheme: String,
    /// What stands alone behind the scheme, as in `Negotiate abc==`.
    pub token: Option<String>,
    /// Names in lower case, values without their quotes, in their order.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// All challenges of one field, which may hold several; each parameter belongs to the scheme
    /// before it. What is no challenge is left out. Takes at most [`MAX_LEN`] bytes and gives at most
    /// [`MAX_PARTS`] challenges and parameters together.
    pub fn list(field: &str) -> Vec<Self> {
        let mut challenges: Vec<Self> = Vec::new();
        if field.len() > MAX_LEN {
            return challenges;
        }
        for element in split_list(field).into_iter().take(MAX_PARTS) {
            if let Some(parameter) = parameter(element) {
                if let Some(last) = challenges.last_mut() {
                    last.parameters.push(parameter);
                }
                continue;
            }
            let (scheme, rest) = match element.split_once([' ', '\t']) {
                Some((scheme, rest)) => (scheme, rest.trim()),
                None => (element, ""),
            };
            if scheme.is_empty() || !scheme.bytes().all(is_token) {
                continue;
            }
            let mut challenge = Self {
                scheme: scheme.into(),
                ..Self::default()
            };
            match parameter(rest) {
                Some(parameter) => challenge.parameters.push(parameter),
                None if !rest.is_empty() => challenge.token = Some(rest.into()),
                None => {}
            }
            challenges.push(challenge);
        }
        challenges
    }

    /// Whether it is of this scheme, in any case.
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The first parameter of this name, which is in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Parameters without a scheme, as in `Authentication-Info` (RFC 9110, 11.6.3); the same caps.
pub fn parameters(field: &str) -> Vec<(String, String)> {
    if field.len() > MAX_LEN {
        return Vec::new();
    }
    let elements = split_list(field).into_iter().take(MAX_PARTS);
    elements.filter_map(parameter).collect()
}

/// `name = value` or `name = "value"`.
fn parameter(element: &str) -> Option<(String, String)> {
    let (name, value) = element.split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim_start());
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    let value = match value.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None if !value.is_empty() && value.bytes().all(is_token) => value.into(),
        None => return None,
    };
    Some((name.to_ascii_lowercase(), value))
}

/// What is between quotes, of which the first is left out; `None` when the second is missing.
fn unquote(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => return chars.next().is_none().then_some(out),
            '\\' => out.push(chars.next()?),
            char => out.push(char),
        }
    }
    None
}

/// The elements of a list (RFC 9110, 5.6.1), without the empty ones; commas within quotes are no ends.
pub fn split_list(text: &str) -> Vec<&str> {
    let (mut items, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                items.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(text[start..].trim());
    items.retain(|item| !item.is_empty());
    items
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Bytes of a field that are looked at.
pub const MAX_LEN: usize = 16 << 10;
/// Challenges and parameters of a field.
pub const MAX_PARTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn schemes(field: &str) -> Vec<String> {
        let list = Challenge::list(field);
        list.into_iter().map(|challenge| challenge.scheme).collect()
    }

    #[test]
    fn one_field_may_hold_several_challenges() {
        // RFC 9110, 11.6.1.
        let field =
            r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#;
        let list = Challenge::list(field);
        assert_eq!(schemes(field), ["Basic", "Newauth"]);
        assert_eq!(list[0].get("realm"), Some("simple"));
        assert_eq!(list[1].get("realm"), Some("apps"));
        assert_eq!(list[1].get("type"), Some("1"));
        assert_eq!(list[1].get("title"), Some("Login to \"apps\""));
    }

    #[test]
    fn a_scheme_stands_alone_or_with_a_token() {
        let field = "Negotiate, NTLM abc==, , Digest  Realm = \"a, b\" ,nonce=n";
        let list = Challenge::list(field);
        assert_eq!(schemes(field), ["Negotiate", "NTLM", "Digest"]);
        assert_eq!(list[1].token.as_deref(), Some("abc=="));
        assert!(list[2].is("digest"));
        assert_eq!(list[2].get("realm"), Some("a, b"));
        assert_eq!(list[2].get("nonce"), Some("n"));
    }

    #[test]
    fn what_is_no_challenge_is_left_out() {
        for field in ["", ",", "a=b", "\"x\"", "=", "(x) y=z"] {
            assert!(Challenge::list(field).is_empty(), "{field}");
        }
        // An open quote swallows the rest.
        let list = Challenge::list("Digest realm=\"a, nonce=n");
        assert_eq!(list[0].parameters, []);
        assert!(Challenge::list(&"x".repeat(MAX_LEN + 1)).is_empty());
        assert_eq!(Challenge::list(&"x,".repeat(5000)).len(), MAX_PARTS);
    }
}

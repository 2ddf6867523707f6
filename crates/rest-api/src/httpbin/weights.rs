//! Lists of status codes with weights, such as `200:3,500:1`.

/// A status code with its weight.
pub type Choice = (i64, f64);

/// Reads a list; `None` where a code is no number or a weight none.
pub fn parse(text: &str) -> Option<Vec<Choice>> {
    let items = text.split(',').map(|item| {
        let (code, weight) = item.split_once(':').unwrap_or((item, "1"));
        let weight: f64 = weight.trim().parse().ok()?;
        Some((code.trim().parse().ok()?, weight))
    });
    items.collect()
}

/// The choice that a fraction from 0 up to 1 falls on.
pub fn choose(choices: &[Choice], fraction: f64) -> i64 {
    let usable = |weight: f64| {
        if weight.is_finite() {
            weight.max(0.0)
        } else {
            0.0
        }
    };
    let total: f64 = choices.iter().map(|(_, weight)| usable(*weight)).sum();
    let mut left = fraction * total;
    for (code, weight) in choices {
        let weight = usable(*weight);
        if left < weight {
            return *code;
        }
        left -= weight;
    }
    // All weigh nothing, or rounding has left something over.
    choices.last().map_or(200, |(code, _)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_its_weights() {
        assert_eq!(parse("200,500:0.5"), Some(vec![(200, 1.0), (500, 0.5)]));
        for text in ["", "200,", "200:", "200:x,500", "foo,200", "200:1:2,3"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_fraction_falls_by_weight() {
        let choices = [(200, 3.0), (404, 0.0), (500, 1.0)];
        for (fraction, code) in [(0.0, 200), (0.74, 200), (0.75, 500), (0.99, 500)] {
            assert_eq!(choose(&choices, fraction), code);
        }
        assert_eq!(
            choose(&[(200, 0.0), (201, f64::NAN), (202, -1.0)], 0.5),
            202
        );
        assert_eq!(choose(&[(200, f64::INFINITY), (201, 1.0)], 0.9), 201);
    }
}

//! One variable scales all counts: `HOLDFAST_SCALE` (default 1; `smoke/long` sets a larger one).

/// `count` times `HOLDFAST_SCALE`, at least 1. Fractions are allowed: 0.2 makes a quick local run.
pub fn scaled(count: u32) -> u32 {
    let scale: f64 = std::env::var("HOLDFAST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    ((f64::from(count) * scale).round() as u32).max(1)
}

//! The parts that all pictures have in common.

use std::fmt::Write as _;

/// The colours of FerryMQ and of RabbitMQ.
pub const COLOURS: [&str; 2] = ["#0b6e99", "#d9730d"];

/// The start of a picture of this size, with its title. A long title has smaller letters.
pub fn start(title: &str, width: f64, height: f64) -> String {
    let size = ((width - 20.0) / (0.56 * title.chars().count() as f64)).min(15.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"{size:.0}\">{title}</text>\n"
    )
}

/// The label of a power of ten.
pub fn power_of_ten(power: i32) -> String {
    match power {
        0..=3 => 10_i64.pow(power as u32).to_string(),
        -3..=-1 => format!("{:.*}", power.unsigned_abs() as usize, 10_f64.powi(power)),
        _ => {
            let mut text = String::new();
            // Writing to memory cannot fail.
            let _ = write!(text, "10<tspan dy=\"-5\" font-size=\"9\">{power}</tspan>");
            text
        }
    }
}

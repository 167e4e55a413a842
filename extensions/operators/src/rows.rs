//! Rows for programs.

use extension_sdk::{Fault, FaultCode};
use interfaces::Row;

use crate::rank;

/// A JSON array, one row to a line, in the order of the ranking.
pub(crate) fn to_json(mut rows: Vec<Row>) -> Result<String, Fault> {
    rank::sort(&mut rows);
    let mut json = Vec::from(b"[");
    for (index, row) in rows.iter().enumerate() {
        json.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
        serde_json::to_writer(&mut json, row).map_err(|error| {
            Fault::new(FaultCode::Failed, format!("a row cannot be written as JSON: {error}"))
        })?;
    }
    json.extend_from_slice(if rows.is_empty() { b"]\n" } else { b"\n]\n" });
    String::from_utf8(json).map_err(|error| Fault::new(FaultCode::Failed, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_a_json_array_in_the_order_of_the_ranking() {
        let strange = Row { path: "a\n\"b\"".into(), bytes: 1, blake3: Some("00".into()), ..Row::default() };
        let large = Row { path: "z".into(), bytes: 2, error: Some("gone".into()), ..Row::default() };
        let text = to_json(vec![strange.clone(), large.clone()]).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Row>>(&text).unwrap(), [large, strange]);
        assert_eq!(text.lines().count(), 4);
        assert_eq!(to_json(Vec::new()).unwrap(), "[]\n");
    }
}

//! A mistake in an interface is reported at the author's own line, with what to write instead.

#[test]
fn mistakes_are_reported_where_they_are() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

use super::*;
use crate::page::tests::{database, target};

fn selected(query: &str, database: &DatabaseStatus) -> Option<Vec<usize>> {
    Query::parse(query).expect("a good query").select(database)
}

#[test]
fn a_query_is_read_and_written_again() {
    let table = [
        ("", "?"),
        ("show=all&refresh=on", "?"),
        ("show=down&q=+my+sql+&refresh=off&utm=1", "?show=down&q=my+sql&refresh=off"),
        ("show=down&show=trouble", "?show=trouble"),
        ("q=%22%3E%3Cscript%3E%00%ff&&&=&=x", "?q=%22%3E%3Cscript%3E%00%EF%BF%BD"),
    ];
    for (text, link) in table {
        let query = Query::parse(text).expect(text);
        assert_eq!(query.link(), link, "{text}");
        assert_eq!(Query::parse(&link[1..]), Ok(query), "{text}");
    }
}

#[test]
fn a_bad_query_is_refused_with_what_to_change() {
    let long = format!("q={}", "x".repeat(201));
    for (text, error) in [
        ("show=healthy", "show is none of trouble, down, maintenance, all"),
        ("refresh=5", "refresh is neither on nor off"),
        (&*long, "q is too long: it may have 200 bytes"),
    ] {
        assert_eq!(Query::parse(text), Err(error.to_owned()));
    }
}

#[test]
fn filters_show_what_they_name_and_the_worst_first() {
    let mixed = database("mysql", vec![target("up"), target("down"), target("maintenance")]);
    let fine = database("redis", vec![target("up"), target("maintenance")]);
    for (query, of_mixed, of_fine) in [
        ("", Some(vec![1, 2, 0]), Some(vec![1, 0])),
        ("show=trouble", Some(vec![1, 2]), None),
        ("show=down", Some(vec![1]), None),
        ("show=maintenance", Some(vec![2]), Some(vec![1])),
        ("q=MYSQL", Some(vec![1, 2, 0]), None),
        ("q=prod+refused", Some(vec![1]), None),
        ("q=mysql&show=maintenance", Some(vec![2]), None),
        ("q=nothing", None, None),
    ] {
        assert_eq!(selected(query, &mixed), of_mixed, "{query}");
        assert_eq!(selected(query, &fine), of_fine, "{query}");
    }
}

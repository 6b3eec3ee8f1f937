//! XML in, message out: every case that the contract and the pitfalls name, and a naive model for
//! the rest.
//!
//! The model builds a tree of `serde_json` values and normalises the copies of copies of it, which
//! is slow and easy to check. The transcoder does neither, and must agree with it on every tree.

use std::collections::BTreeSet;

use discogs_extractor::dump::Kind;
use discogs_extractor::message::{Content, Malformed, Profile, Reading, Transcoder};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

fn transcode(kind: Kind, profile: Profile, xml: &[u8]) -> Result<Content, Malformed> {
    let mut transcoder = Transcoder::new(kind, profile);
    let content = transcoder.transcode(xml);
    let again = transcoder.transcode(xml);
    assert_eq!(again, content, "nothing is left over from the last record");
    let mut reference = Transcoder::with_reading(kind, profile, Reading::Reference);
    assert_eq!(reference.transcode(xml), content, "both readers agree");
    content
}

/// The fields of a message, after checking its envelope: the body is what a sorted map of the same
/// fields gives, so no key occurs twice, and the hash is that map's.
fn open_envelope(content: &Content) -> Value {
    let Value::Object(mut fields) =
        serde_json::from_slice(&content.body).expect("a message is JSON")
    else {
        panic!("a message is an object");
    };
    assert_eq!(fields.remove("type"), Some(json!("data")));
    assert_eq!(fields.remove("sha256"), Some(json!(content.sha256())));
    assert_ne!(fields["id"].as_str().expect("the id is a string"), "");

    let record = serde_json::to_string(&fields).expect("a map of values is JSON");
    let hash: String = Sha256::digest(&record)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(content.sha256(), hash);
    let body = format!(r#"{{"type":"data","sha256":"{hash}",{}"#, &record[1..]);
    let written = std::str::from_utf8(&content.body).expect("JSON is UTF-8");
    assert_eq!(written, body);
    Value::Object(fields)
}

#[track_caller]
fn check(kind: Kind, xml: impl AsRef<[u8]>, expected: Value) {
    check_profile(kind, Profile::Normalised, xml, expected);
}

#[track_caller]
#[expect(
    clippy::needless_pass_by_value,
    reason = "expected values are literals"
)]
fn check_profile(kind: Kind, profile: Profile, xml: impl AsRef<[u8]>, expected: Value) {
    let content = transcode(kind, profile, xml.as_ref()).expect("the record is well formed");
    assert_eq!(open_envelope(&content), expected);
}

/// Checks the value of one leaf, `<x>{inner}</x>` in an artist.
#[track_caller]
#[expect(
    clippy::needless_pass_by_value,
    reason = "expected values are literals"
)]
fn check_leaf(inner: impl AsRef<[u8]>, expected: Value) {
    let xml = [b"<artist><id>1</id><x>", inner.as_ref(), b"</x></artist>"].concat();
    check(Kind::Artists, xml, json!({"id": "1", "x": expected}));
}

/// Checks the value of one attribute, `a={quoted}` in an artist.
#[track_caller]
fn check_attribute(quoted: impl AsRef<[u8]>, expected: &str) {
    let xml = [b"<artist><id>1</id><x a=", quoted.as_ref(), b"/></artist>"].concat();
    check(
        Kind::Artists,
        xml,
        json!({"id": "1", "x": {"@a": expected}}),
    );
}

#[track_caller]
fn check_malformed(kind: Kind, xml: impl AsRef<[u8]>, offset: usize, reason: &str) {
    let malformed =
        transcode(kind, Profile::Normalised, xml.as_ref()).expect_err("the record is malformed");
    assert_eq!(malformed.reason, reason);
    assert_eq!((malformed.offset, malformed.unbalanced), (offset, false));
}

#[track_caller]
fn check_unbalanced(kind: Kind, xml: impl AsRef<[u8]>, offset: usize, reason: &str) {
    let malformed =
        transcode(kind, Profile::Normalised, xml.as_ref()).expect_err("the record is malformed");
    assert_eq!(malformed.reason, reason);
    assert_eq!((malformed.offset, malformed.unbalanced), (offset, true));
}

#[test]
fn the_body_is_fixed_to_the_byte() {
    let xml = r#"<master id="7"><year>1999</year><title>"Ä" /</title></master>"#;
    let content = transcode(Kind::Masters, Profile::Normalised, xml.as_bytes()).unwrap();
    let hash = "9d4b4f9ae8fafa7ba60799e50c4d5ea9446b27452d85b4b2129cfb01d7fe4439";
    assert_eq!(content.sha256(), hash);
    assert!(!content.repaired);
    assert_eq!(
        String::from_utf8(content.body.into()).unwrap(),
        format!(r#"{{"type":"data","sha256":"{hash}","id":"7","title":"\"Ä\" /","year":"1999"}}"#)
    );
}

#[test]
fn leaves_are_untrimmed_strings_or_null() {
    for (inner, expected) in [
        ("text", json!("text")),
        (" text\n", json!(" text\n")),
        ("", json!(null)),
        (" \n\t", json!(null)),
        ("&#13;\n", json!(null)),
        ("&#32;&#x9;", json!(null)),
        ("<![CDATA[ ]]>", json!(null)),
        ("\u{a0}\u{85}\u{2003}", json!(null)),
        ("\u{200b}", json!("\u{200b}")),
        ("\u{feff}", json!("\u{feff}")),
        ("\u{1c}", json!("\u{1c}")),
        ("\u{a0}x", json!("\u{a0}x")),
    ] {
        check_leaf(inner, expected);
    }
    let empty = "<artist><id>1</id><x/><y /></artist>";
    check(
        Kind::Artists,
        empty,
        json!({"id": "1", "x": null, "y": null}),
    );
}

#[test]
fn references_in_text() {
    for (inner, expected) in [
        ("&amp;&lt;&gt;&apos;&quot;", "&<>'\""),
        ("a&amp;b", "a&b"),
        ("&amp;lt;", "&lt;"),
        ("&#65;&#x42;&#x1F3B5;", "AB🎵"),
        ("&#13;", "\r"),
        ("&#0000000065;", "A"),
        ("&#0;", "\u{fffd}"),
        (
            "&#xD800;&#x110000;&#99999999999999999999;",
            "\u{fffd}\u{fffd}\u{fffd}",
        ),
        ("&#1;", "\u{1}"),
        ("&", "&"),
        ("R & B", "R & B"),
        ("R && B;", "R && B;"),
        ("AT&T; x", "AT&T; x"),
        ("a & b\r\nc; d", "a & b\nc; d"),
        ("&nbsp;&foo;", "&nbsp;&foo;"),
        ("&AMP;", "&AMP;"),
        (
            "&;&#;&#x;&#X41;&#-1;&#+1;&#1a;&#65",
            "&;&#;&#x;&#X41;&#-1;&#+1;&#1a;&#65",
        ),
    ] {
        // A lone CR would be null.
        check_leaf(format!("|{inner}|"), json!(format!("|{expected}|")));
    }
    check_leaf("tail &", json!("tail &"));
    check_leaf("&<!-- -->amp;", json!("&amp;"));
}

#[test]
fn line_ends_and_controls_in_text() {
    check_leaf("a\r\nb\rc\r\r\nd\n", json!("a\nb\nc\n\nd\n"));
    check_leaf("a\r&#10;b", json!("a\n\nb"));
    check_leaf(
        "a\0b\u{1}\u{8}\u{c}\u{1f}\u{7f}\u{85}",
        json!("a\u{fffd}b\u{1}\u{8}\u{c}\u{1f}\u{7f}\u{85}"),
    );
    check_leaf("\"\\/\t", json!("\"\\/\t"));
    check_leaf("a > b ]]> c", json!("a > b ]]> c"));
    check_leaf(
        "\u{200e}e\u{301}\u{1F468}\u{200d}\u{1F469}",
        json!("\u{200e}e\u{301}\u{1F468}\u{200d}\u{1F469}"),
    );
}

#[test]
fn sections_comments_and_instructions_in_text() {
    check_leaf(
        "<![CDATA[<b>&amp;</b>\r\n\0]]>",
        json!("<b>&amp;</b>\n\u{fffd}"),
    );
    check_leaf("a<![CDATA[ b ]]>c<![CDATA[]]>", json!("a b c"));
    check_leaf("a<!-- <x> & -- -->b<?php echo '</x>' ?>c", json!("abc"));
    check_leaf("a]]<![CDATA[]]]]><![CDATA[>]]>", json!("a]]]]>"));
}

#[test]
fn attributes_are_strings_even_if_empty() {
    for (quoted, expected) in [
        (r#""""#, ""),
        (r#"" ""#, " "),
        (r#""a > b""#, "a > b"),
        (r#"'say "hi" />'"#, "say \"hi\" />"),
        (r#""it's""#, "it's"),
        (r#""&amp;&lt;&#39;&#x26;&nbsp;&""#, "&<'&&nbsp;&"),
        ("\"a\tb\nc\r\nd\re\"", "a b c d e"),
        ("\"&#9;&#10;&#13;\"", "\t\n\r"),
        ("\"\0\u{1}&#0;\"", "\u{fffd}\u{1}\u{fffd}"),
        (" \n \"spaced\" ", "spaced"),
    ] {
        check_attribute(quoted, expected);
    }
}

#[test]
fn shapes_are_those_of_xmltodict() {
    let cases = [
        ("<x><y>1</y></x>", json!({"x": {"y": "1"}})),
        (
            "<x><y>1</y><y/><y>3</y></x>",
            json!({"x": {"y": ["1", null, "3"]}}),
        ),
        ("<x>1</x><y/><x>2</x>", json!({"x": ["1", "2"], "y": null})),
        (r#"<x a="1">t</x>"#, json!({"x": {"@a": "1", "#text": "t"}})),
        (r#"<x a="1"> </x>"#, json!({"x": {"@a": "1"}})),
        (
            r#"<x b="2" a="1"><a>3</a></x>"#,
            json!({"x": {"@a": "1", "@b": "2", "a": "3"}}),
        ),
        (
            "<x>\n <y>1</y>\n <z/>\n</x>",
            json!({"x": {"y": "1", "z": null}}),
        ),
        (
            "<x> a <y>b</y> c <z>d</z> </x>",
            json!({"x": {"#text": " a  c  ", "y": "b", "z": "d"}}),
        ),
        (
            "<x><y/>&amp;<y/></x>",
            json!({"x": {"#text": "&", "y": [null, null]}}),
        ),
        ("<x><x><x>1</x></x></x>", json!({"x": {"x": {"x": "1"}}})),
        ("<é:x.1-_>1</é:x.1-_>", json!({"é:x.1-_": "1"})),
    ];
    for (inner, mut expected) in cases {
        expected["id"] = json!("1");
        for profile in [Profile::Normalised, Profile::Raw] {
            let xml = format!("<artist><id>1</id>{inner}</artist>");
            check_profile(Kind::Artists, profile, xml, expected.clone());
        }
    }
}

#[test]
fn keys_are_sorted_by_bytes() {
    let xml =
        r#"<artist><b/><a/><é/><B/><aa/><:/><id>1</id><x b="" B="" a=""><c/>t<A/></x></artist>"#;
    let content = transcode(Kind::Artists, Profile::Normalised, xml.as_bytes()).unwrap();
    let body = String::from_utf8(content.body.into()).unwrap();
    let fields = concat!(
        r#"":":null,"B":null,"a":null,"aa":null,"b":null,"id":"1","#,
        r##""x":{"#text":"t","@B":"","@a":"","@b":"","A":null,"c":null},"é":null}"##
    );
    assert!(body.ends_with(fields), "{body}");
}

#[test]
fn artists() {
    let cases = [
        (
            r#"<members><id>2</id><name id="2">A</name><id>3</id><name id="3">B</name></members>"#,
            json!({"members": [{"id": "2", "name": "A"}, {"id": "3", "name": "B"}]}),
        ),
        (
            r#"<groups><name id="2">A &amp; B</name></groups><aliases><name>9</name></aliases>"#,
            json!({"groups": [{"id": "2", "name": "A & B"}], "aliases": [{"id": "9"}]}),
        ),
        (
            "<members/><groups> </groups><aliases><id>2</id></aliases>",
            json!({}),
        ),
        (r#"<members><name/></members><groups a="1"/>"#, json!({})),
        (
            "<members><name/><name/></members>",
            json!({"members": [null, null]}),
        ),
        (
            "<members><name/><name>2</name></members>",
            json!({"members": [null, {"id": "2"}]}),
        ),
        (
            r#"<members><name id="2"/></members>"#,
            json!({"members": [{"id": "2"}]}),
        ),
        ("<members>2</members>", json!({"members": [{"id": "2"}]})),
        (
            "<members><name>2</name></members><x/><members><name>3</name></members>",
            json!({"members": [{"id": "2"}, {"id": "3"}], "x": null}),
        ),
        ("<members/><members><name/></members>", json!({})),
        (
            "<namevariations><name>A</name><name>B</name></namevariations><urls><url>u</url></urls>",
            json!({"namevariations": {"name": ["A", "B"]}, "urls": {"url": "u"}}),
        ),
        (
            r#"<images><image uri="" type="x"/></images>"#,
            json!({"images": {"image": {"@uri": "", "@type": "x"}}}),
        ),
        // A rule of another kind does not apply.
        (
            "<genres><genre>x</genre></genres>",
            json!({"genres": {"genre": "x"}}),
        ),
    ];
    for (inner, mut expected) in cases {
        expected["id"] = json!("1");
        check(
            Kind::Artists,
            format!("<artist><id>1</id>{inner}</artist>"),
            expected,
        );
    }
}

#[test]
fn labels() {
    let cases = [
        (
            r#"<parentLabel id="2">P</parentLabel>"#,
            json!({"parentLabel": {"id": "2", "name": "P"}}),
        ),
        ("<parentLabel>P</parentLabel>", json!({"parentLabel": "P"})),
        ("<parentLabel/>", json!({"parentLabel": null})),
        (
            r#"<sublabels><label id="2">A</label><label id="3">B</label></sublabels>"#,
            json!({"sublabels": [{"id": "2", "name": "A"}, {"id": "3", "name": "B"}]}),
        ),
        (
            r#"<sublabels><label id="2">A</label></sublabels>"#,
            json!({"sublabels": [{"id": "2", "name": "A"}]}),
        ),
        ("<sublabels><label/></sublabels>", json!({})),
        (
            "<sublabels><label/><label/></sublabels>",
            json!({"sublabels": [null, null]}),
        ),
        ("<sublabels/>", json!({})),
    ];
    for (inner, mut expected) in cases {
        expected["id"] = json!("1");
        check(
            Kind::Labels,
            format!("<label>{inner}<id>1</id></label>"),
            expected,
        );
    }
}

#[test]
fn masters() {
    let cases = [
        (
            "<artists><artist><id>2</id><name>A</name><anv/></artist></artists>",
            json!({"artists": [{"id": "2", "name": "A", "anv": null}]}),
        ),
        (
            "<genres><genre>Rock</genre></genres><styles><style>A</style><style>B</style></styles>",
            json!({"genres": ["Rock"], "styles": ["A", "B"]}),
        ),
        ("<genres/><styles><x/></styles><artists/>", json!({})),
        ("<genres><genre/></genres>", json!({})),
        (
            "<genres><genre/><genre>Rock</genre></genres>",
            json!({"genres": [null, "Rock"]}),
        ),
        ("<genres>Rock</genres>", json!({"genres": ["Rock"]})),
        (
            r#"<genres><genre a="1">Rock</genre></genres>"#,
            json!({"genres": [{"@a": "1", "#text": "Rock"}]}),
        ),
        ("<id>2</id>", json!({})),
        ("<id>2</id><id>3</id>", json!({})),
        ("text", json!({"name": "text"})),
        ("text<name>n</name>", json!({"#text": "text", "name": "n"})),
        (
            r#"<videos><video src="s"><title>t</title></video></videos>"#,
            json!({"videos": {"video": {"@src": "s", "title": "t"}}}),
        ),
        (
            "<formats><format/></formats>",
            json!({"formats": {"format": null}}),
        ),
    ];
    for (inner, mut expected) in cases {
        expected["id"] = json!("1");
        check(
            Kind::Masters,
            format!(r#"<master id="1">{inner}</master>"#),
            expected,
        );
    }
}

#[test]
fn releases() {
    let cases = [
        (
            r#"<labels><label name="L" catno="C" id="2"/><label name="M"/></labels>"#,
            json!({"labels": [{"catno": "C", "id": "2", "name": "L"}, {"name": "M"}]}),
        ),
        (
            r#"<formats><format name="CD" qty="1" text=""><descriptions><description a="1">x</description></descriptions></format></formats>"#,
            json!({"formats": [{
                "name": "CD", "qty": "1", "text": "",
                "descriptions": {"description": {"@a": "1", "#text": "x"}},
            }]}),
        ),
        (
            "<formats><format>CD</format><format/></formats>",
            json!({"formats": ["CD", null]}),
        ),
        (
            "<labels><label>2</label><label/></labels>",
            json!({"labels": [{"id": "2"}, null]}),
        ),
        (
            "<artists><artist><name>A</name></artist></artists><extraartists/>",
            json!({"artists": [{"name": "A"}]}),
        ),
        (
            r#"<extraartists><artist id="2"><id>3</id><name>A</name>t</artist></extraartists>"#,
            json!({"extraartists": [{"id": "2", "name": "A", "#text": "t"}]}),
        ),
        (
            r#"<artists><artist name="A">t</artist></artists>"#,
            json!({"artists": [{"#text": "t", "name": "A"}]}),
        ),
        ("<master_id>2</master_id>", json!({"master_id": "2"})),
        (
            r#"<master_id is_main_release="true">2</master_id>"#,
            json!({"master_id": "2"}),
        ),
        (
            r#"<master_id is_main_release="true"/>"#,
            json!({"master_id": null}),
        ),
        ("<master_id/>", json!({"master_id": null})),
        (
            r#"<master_id a="1">2</master_id><master_id>3</master_id>"#,
            json!({"master_id": ["2", "3"]}),
        ),
        (
            r#"<tracklist><track a="1"><title/></track></tracklist><identifiers><identifier type="t"/></identifiers>"#,
            json!({"tracklist": {"track": {"@a": "1", "title": null}}, "identifiers": {"identifier": {"@type": "t"}}}),
        ),
        (
            r#"<companies/><series><series name="s"/></series>"#,
            json!({"companies": null, "series": {"series": {"@name": "s"}}}),
        ),
    ];
    for (inner, mut expected) in cases {
        expected["id"] = json!("1");
        expected["status"] = json!("Accepted");
        let xml = format!(r#"<release id="1" status="Accepted">{inner}</release>"#);
        check(Kind::Releases, xml, expected);
    }
}

#[test]
fn attributes_beat_children_of_the_same_name() {
    let xml = r#"<release id="1" status="s" genres="g"><status>t</status><status/><genres><genre>h</genre></genres></release>"#;
    check(
        Kind::Releases,
        xml,
        json!({"id": "1", "status": "s", "genres": ["g"]}),
    );
}

#[test]
fn ids() {
    check(
        Kind::Artists,
        "<artist><id> 1 </id></artist>",
        json!({"id": " 1 "}),
    );
    check(
        Kind::Artists,
        r#"<artist id="1"/>"#,
        json!({"@id": "1", "id": "1"}),
    );
    check(
        Kind::Artists,
        r#"<artist id="1"><id>2</id></artist>"#,
        json!({"@id": "1", "id": "1"}),
    );
    check(
        Kind::Masters,
        "<master><id>1</id></master>",
        json!({"id": "1"}),
    );
    for (xml, kind) in [
        ("<artist><name>A</name></artist>", Kind::Artists),
        ("<artist/>", Kind::Artists),
        ("<artist>1</artist>", Kind::Artists),
        ("<artist><id/></artist>", Kind::Artists),
        ("<artist><id>&#13;</id></artist>", Kind::Artists),
        (r#"<artist><id a="1">1</id></artist>"#, Kind::Artists),
        ("<artist><id><x/></id></artist>", Kind::Artists),
        ("<artist><id>1</id><id>1</id></artist>", Kind::Artists),
        ("<artist><x><id>1</id></x></artist>", Kind::Artists),
        (r#"<release id=""/>"#, Kind::Releases),
        (r#"<release id=" "><id>1</id></release>"#, Kind::Releases),
        (r#"<release status="Accepted"/>"#, Kind::Releases),
    ] {
        check_malformed(kind, xml, 0, "the record has no id");
    }
}

#[test]
fn the_envelope_owns_type_and_sha256() {
    let xml = r#"<release id="1" type="a"><type>b</type><sha256>c</sha256><sha256/><x type="d"/></release>"#;
    check(Kind::Releases, xml, json!({"id": "1", "x": {"@type": "d"}}));
    let raw = json!({"@id": "1", "id": "1", "@type": "a", "x": {"@type": "d"}});
    check_profile(Kind::Releases, Profile::Raw, xml, raw);
}

#[test]
fn the_raw_profile_keeps_the_shape_of_xmltodict() {
    let xml = r#"<release id="1" status="s"><id>2</id><genres><genre>g</genre></genres><master_id a="1">3</master_id></release>"#;
    let expected = json!({
        "@id": "1", "@status": "s", "id": "1",
        "genres": {"genre": "g"}, "master_id": {"@a": "1", "#text": "3"},
    });
    check_profile(Kind::Releases, Profile::Raw, xml, expected);
    let xml = r#"<artist><id>1</id><aliases/><members><name id="2">A</name></members></artist>"#;
    let expected =
        json!({"id": "1", "aliases": null, "members": {"name": {"@id": "2", "#text": "A"}}});
    check_profile(Kind::Artists, Profile::Raw, xml, expected);
}

#[test]
fn what_stands_around_a_record_is_ignored() {
    let xml = "\r\n <!-- a --><artist\n><id\t>1</id >\n</artist\r\n> <?b?>\n";
    check(Kind::Artists, xml, json!({"id": "1"}));
    check(
        Kind::Artists,
        "<?xml version='1.0'?><artist id='1'/>",
        json!({"@id": "1", "id": "1"}),
    );
}

#[test]
fn bytes_that_are_not_utf8_are_replaced_and_reported() {
    let xml = b"<artist><id>1</id><x a='\xff'>caf\xe9 \xe2\x82 \xed\xa0\x80</x></artist>";
    let content = transcode(Kind::Artists, Profile::Normalised, xml).unwrap();
    assert!(content.repaired);
    let text = "caf\u{fffd} \u{fffd} \u{fffd}\u{fffd}\u{fffd}";
    let expected = json!({"id": "1", "x": {"@a": "\u{fffd}", "#text": text}});
    assert_eq!(open_envelope(&content), expected);
}

#[test]
fn unbalanced_records_say_so() {
    let kind = Kind::Labels;
    for (xml, offset, reason) in [
        ("<label><id>1</id>", 17, "`<label>` at byte 0 is not closed"),
        ("<label><id>1</id><x>", 20, "`<x>` at byte 17 is not closed"),
        (
            "<label><id>1</label>",
            12,
            "`</label>` where `</id>` was expected, opened at byte 7",
        ),
        (
            "<label><id>1</ID></label>",
            12,
            "`</ID>` where `</id>` was expected, opened at byte 7",
        ),
        (
            "<label><id>1</id></label></label>",
            25,
            "`</label>` closes nothing",
        ),
        ("</label>", 0, "`</label>` closes nothing"),
        (
            "<label><id>1</id><x",
            17,
            "syntax error: tag not closed: `>` not found before end of input",
        ),
        (
            "<label><x a=\"></label>",
            7,
            "syntax error: attribute value not closed: `\"` not found before end of input",
        ),
        (
            "<label><!-- </label>",
            7,
            "syntax error: comment not closed: `-->` not found before end of input",
        ),
        (
            "<label><![CDATA[</label>",
            7,
            "syntax error: CDATA not closed: `]]>` not found before end of input",
        ),
        ("<label><x a></x></label>", 11, "an attribute lacks `=`"),
        (
            "<label><x a=1></x></label>",
            12,
            "the value of an attribute is not quoted",
        ),
        (
            "<label><x a=></x></label>",
            12,
            "the value of an attribute is not quoted",
        ),
    ] {
        check_unbalanced(kind, xml, offset, reason);
    }
}

#[test]
fn malformed_records_are_refused() {
    let kind = Kind::Labels;
    for (xml, offset, reason) in [
        ("", 0, "a record starts with `<`"),
        ("text", 0, "a record starts with `<`"),
        (
            "\u{feff}<label><id>1</id></label>",
            0,
            "a record starts with `<`",
        ),
        ("<!-- only -->", 0, "there is no `<label>`"),
        (
            "<labels><id>1</id></labels>",
            0,
            "`<labels>` where `<label>` was expected",
        ),
        ("\n<artist/>", 1, "`<artist>` where `<label>` was expected"),
        (
            "<label><id>1</id></label><label/>",
            25,
            "an element follows the record",
        ),
        (
            "<label><id>1</id></label> x",
            25,
            "text stands outside of the record",
        ),
        (
            "<label><id>1</id></label>&amp;",
            25,
            "text stands outside of the record",
        ),
        (
            "<label><id>1</id></label><![CDATA[]]>",
            25,
            "CDATA stands outside of the record",
        ),
        (
            "<label><!DOCTYPE x><id>1</id></label>",
            7,
            "a document type is no part of a record",
        ),
        (
            "<label><x a='1' a='2'/></label>",
            16,
            "an attribute occurs twice",
        ),
        (
            "<label><#text>1</#text></label>",
            8,
            "`#text` is not a name",
        ),
        ("<label><@id>1</@id></label>", 8, "`@id` is not a name"),
        ("<label><>1</></label>", 8, "`` is not a name"),
        ("<label><1/></label>", 8, "`1` is not a name"),
        ("<label><x a&b='1'/></label>", 9, "`a&b` is not a name"),
    ] {
        check_malformed(kind, xml, offset, reason);
    }
    let shown = transcode(kind, Profile::Normalised, b"<label/>")
        .unwrap_err()
        .to_string();
    assert_eq!(shown, "malformed record at byte 0: the record has no id");
}

#[test]
fn offsets_count_the_bytes_of_the_record_not_of_its_repair() {
    let xml = b"<label>\xff\xff\xe2\x82<x>\xff</label>";
    let reason = "`</label>` where `</x>` was expected, opened at byte";
    let malformed = transcode(Kind::Labels, Profile::Normalised, xml).unwrap_err();
    assert!(malformed.reason.starts_with(reason), "{malformed}");
    assert_eq!(malformed.offset, 15);
}

#[test]
fn a_transcoder_goes_on_after_a_malformed_record() {
    let mut transcoder = Transcoder::new(Kind::Labels, Profile::default());
    let good = b"<label><id>1</id><x>a<y/>b</x></label>";
    let expected = transcoder.transcode(good);
    for bad in [
        "<label><id>1</id><x>a<y>b",
        "<label>",
        "",
        "<label><x a='1' a='2'>",
    ] {
        transcoder.transcode(bad.as_bytes()).unwrap_err();
        assert_eq!(transcoder.transcode(good), expected);
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        let inner = depth - 1;
        format!(
            "<artist id='1'>{}{}</artist>",
            "<x>".repeat(inner),
            "</x>".repeat(inner)
        )
    };
    transcode(Kind::Artists, Profile::Raw, nested(256).as_bytes()).unwrap();
    check_malformed(
        Kind::Artists,
        nested(257),
        15 + 3 * 255,
        "elements nest deeper than 256",
    );
    let far = "<artist>".repeat(100_000);
    check_malformed(Kind::Artists, far, 8 * 256, "elements nest deeper than 256");
}

#[test]
fn a_record_of_64_mib_is_read() {
    let text = "0123456789abcdef".repeat(4 << 20);
    let xml = format!("<artist><id>1</id><profile>{text}</profile></artist>");
    let content = transcode(Kind::Artists, Profile::Normalised, xml.as_bytes()).unwrap();
    assert!(content.body.ends_with(br#"0123456789abcdef"}"#));
    assert!(content.body.len() > text.len());
}

#[test]
fn many_fields_and_pieces_take_linear_time() {
    let count = 20_000;
    let tracks = " <track> & <title/> </track>\n".repeat(count);
    let attributes: String = (0..count).map(|at| format!(" a{at}='&'")).collect();
    let xml = format!("<release id='1'><tracklist{attributes}>{tracks}</tracklist></release>");
    let content = transcode(Kind::Releases, Profile::Normalised, xml.as_bytes()).unwrap();
    let fields = open_envelope(&content);
    assert_eq!(
        fields["tracklist"]["track"].as_array().unwrap().len(),
        count
    );
    assert_eq!(
        fields["tracklist"]["track"][0],
        json!({"#text": " &  ", "title": null})
    );
}

/// An element, as the model knows it.
#[derive(Clone, Debug)]
struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    content: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    CharacterData(String),
    Comment,
    Child(Element),
}

impl Element {
    fn write(&self, xml: &mut String) {
        xml.push_str(&format!("<{}", self.name));
        for (name, value) in &self.attributes {
            xml.push_str(&format!(" {name}=\"{}\"", escape(value)));
        }
        xml.push('>');
        for piece in &self.content {
            match piece {
                Piece::Text(text) => xml.push_str(&escape(text)),
                Piece::CharacterData(text) => xml.push_str(&format!("<![CDATA[{text}]]>")),
                Piece::Comment => xml.push_str("<!-- & <no> -->"),
                Piece::Child(child) => child.write(xml),
            }
        }
        xml.push_str(&format!("</{}>", self.name));
    }

    /// What xmltodict makes of it, but for trimming.
    fn to_json(&self) -> Value {
        let mut fields = Map::new();
        for (name, value) in &self.attributes {
            fields.insert(format!("@{name}"), json!(value.replace('\0', "\u{fffd}")));
        }
        let mut text = String::new();
        for piece in &self.content {
            match piece {
                Piece::Text(piece) => text += &piece.replace('\0', "\u{fffd}"),
                Piece::CharacterData(piece) => {
                    text += &piece.replace("\r\n", "\n").replace('\r', "\n");
                }
                Piece::Comment => (),
                Piece::Child(child) => push(&mut fields, child.name, child.to_json()),
            }
        }
        let text = (!text.trim().is_empty()).then_some(text);
        match text {
            Some(text) if fields.is_empty() => return json!(text),
            None if fields.is_empty() => return Value::Null,
            Some(text) => drop(fields.insert("#text".to_owned(), json!(text))),
            None => (),
        }
        Value::Object(fields)
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
        .replace('\r', "&#13;")
        .replace('\n', "&#xA;")
        .replace('\t', "&#9;")
}

fn push(fields: &mut Map<String, Value>, name: &str, value: Value) {
    match fields.get_mut(name) {
        None => drop(fields.insert(name.to_owned(), value)),
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = json!([first, value]),
    }
}

/// The message fields of a record, as the contract describes them; none without an id.
fn model(kind: Kind, profile: Profile, record: &Element) -> Option<Value> {
    let Value::Object(mut fields) = record.to_json() else {
        return None;
    };
    let id = fields.get("@id").or(fields.get("id"))?.as_str()?.to_owned();
    if id.trim().is_empty() {
        return None;
    }
    fields.insert("id".to_owned(), json!(id));
    if profile == Profile::Normalised {
        fields = model_normalise(kind, fields);
    }
    fields.remove("type");
    fields.remove("sha256");
    Some(Value::Object(fields))
}

fn model_normalise(kind: Kind, fields: Map<String, Value>) -> Map<String, Value> {
    let mut fields = match kind {
        Kind::Artists | Kind::Labels => fields,
        Kind::Masters | Kind::Releases => model_strip(&fields),
    };
    let lists: &[(&str, &str)] = match kind {
        Kind::Artists => &[("members", "name"), ("groups", "name"), ("aliases", "name")],
        Kind::Labels => &[("sublabels", "label")],
        Kind::Masters => &[
            ("artists", "artist"),
            ("genres", "genre"),
            ("styles", "style"),
        ],
        Kind::Releases => &[
            ("artists", "artist"),
            ("extraartists", "artist"),
            ("labels", "label"),
            ("formats", "format"),
            ("genres", "genre"),
            ("styles", "style"),
        ],
    };
    for &(field, of) in lists {
        if let Some(container) = fields.remove(field) {
            let items = model_items(&container, of);
            let items: Vec<_> = items.iter().map(|item| model_item(of, item)).collect();
            if !items.is_empty() && items != [Value::Null] {
                fields.insert(field.to_owned(), json!(items));
            }
        }
    }
    if let (Kind::Labels, Some(parent)) = (kind, fields.get_mut("parentLabel")) {
        *parent = model_each(parent, &|parent| match parent {
            Value::Object(parent) => Value::Object(model_strip(parent)),
            other => other.clone(),
        });
    }
    if let (Kind::Releases, Some(master)) = (kind, fields.get_mut("master_id")) {
        *master = model_each(master, &|master| match master {
            Value::Object(master) => master.get("#text").cloned().unwrap_or(Value::Null),
            other => other.clone(),
        });
    }
    fields
}

fn model_each(value: &Value, change: &dyn Fn(&Value) -> Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(change).collect(),
        value => change(value),
    }
}

fn model_items(container: &Value, of: &str) -> Vec<Value> {
    match container {
        Value::Array(containers) => containers
            .iter()
            .flat_map(|container| model_items(container, of))
            .collect(),
        Value::Object(children) => match children.get(of) {
            None => vec![],
            Some(Value::Array(items)) => items.clone(),
            Some(item) => vec![item.clone()],
        },
        Value::Null => vec![],
        text => vec![text.clone()],
    }
}

fn model_item(of: &str, item: &Value) -> Value {
    match item {
        _ if of == "genre" || of == "style" => item.clone(),
        Value::Object(item) => Value::Object(model_strip(item)),
        Value::String(id) if of != "format" => json!({"id": id}),
        item => item.clone(),
    }
}

fn model_strip(fields: &Map<String, Value>) -> Map<String, Value> {
    let has_name = fields.contains_key("name") || fields.contains_key("@name");
    let mut stripped = Map::new();
    for (key, value) in fields.iter().filter(|(key, _)| !key.starts_with('@')) {
        let key = if key == "#text" && !has_name {
            "name"
        } else {
            key
        };
        stripped.insert(key.to_owned(), value.clone());
    }
    for (key, value) in fields {
        if let Some(key) = key.strip_prefix('@') {
            stripped.insert(key.to_owned(), value.clone());
        }
    }
    stripped
}

const NAMES: [&str; 22] = [
    "id",
    "name",
    "artist",
    "artists",
    "extraartists",
    "label",
    "labels",
    "sublabels",
    "genre",
    "genres",
    "style",
    "styles",
    "format",
    "formats",
    "members",
    "groups",
    "aliases",
    "master_id",
    "parentLabel",
    "type",
    "sha256",
    "é",
];

fn any_text() -> impl Strategy<Value = String> {
    let characters = "[ \\n\\r\\t\0\u{1}\u{1f}\u{7f}\u{a0}\u{85}\u{200b}aé🎵\"'\\\\/&<>#;@]{0,12}";
    prop_oneof![Just(String::new()), "[ \\n]{1,3}", "[0-9]{1,3}", characters]
}

fn any_attributes() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let names =
        proptest::sample::subsequence(vec!["id", "name", "artists", "type", "status", "é"], 0..=3);
    names.prop_flat_map(|names| {
        let values = proptest::collection::vec(any_text(), names.len());
        values.prop_map(move |values| names.iter().copied().zip(values).collect())
    })
}

fn any_element() -> impl Strategy<Value = Element> {
    let leaf = (
        proptest::sample::select(&NAMES[..]),
        any_attributes(),
        any_text(),
    );
    let leaf = leaf.prop_map(|(name, attributes, text)| Element {
        name,
        attributes,
        content: vec![Piece::Text(text)],
    });
    leaf.prop_recursive(4, 40, 6, |inner| {
        let name = proptest::sample::select(&NAMES[..]);
        let piece = prop_oneof![
            4 => inner.prop_map(Piece::Child),
            1 => any_text().prop_map(Piece::Text),
            1 => "[ \\r\\na&<>]{0,6}".prop_map(Piece::CharacterData),
            1 => Just(Piece::Comment),
        ];
        let content = proptest::collection::vec(piece, 0..8);
        (name, any_attributes(), content).prop_map(|(name, attributes, content)| Element {
            name,
            attributes,
            content,
        })
    })
}

/// Pieces of markup that are worth being put together wrongly.
fn any_soup() -> impl Strategy<Value = Vec<u8>> {
    let fragments: Vec<&'static [u8]> = vec![
        b"<label>",
        b"</label>",
        b"<label",
        b" id='1'",
        b"<id>1</id>",
        b"<id>",
        b"</",
        b"<",
        b"/>",
        b">",
        b"=",
        b"'",
        b"\"",
        b" ",
        b"\r\n",
        b"&",
        b"&amp;",
        b"&#",
        b"&#x",
        b";",
        b"65;",
        b"\0",
        b"<!--",
        b"-->",
        b"<![CDATA[",
        b"]]>",
        b"<?",
        b"?>",
        b"<!DOCTYPE x",
        b"[",
        b"]",
        b"#text",
        b"@id",
        b"\xff",
        b"\xc3\xa9",
        b"\xef\xbb\xbf",
        b"text",
        b"<sublabels>",
        b"</sublabels>",
    ];
    let fragment = proptest::sample::select(fragments);
    let soup = proptest::collection::vec(fragment, 0..20).prop_map(|soup| soup.concat());
    (any::<bool>(), soup).prop_map(|(wrapped, soup)| {
        let wrap: [&[u8]; 2] = [b"<label><id>1</id>", b"</label>"];
        if wrapped {
            [wrap[0], &soup, wrap[1]].concat()
        } else {
            soup
        }
    })
}

proptest! {
    #[test]
    fn every_tree_becomes_what_the_model_says(
        kind in proptest::sample::select(&Kind::ALL[..]),
        raw in any::<bool>(),
        id in proptest::option::of("[ 1]{1,2}"),
        mut record in any_element(),
    ) {
        record.name = kind.record_name();
        if let Some(id) = id {
            record.attributes.retain(|(name, _)| *name != "id");
            record.attributes.push(("id", id));
        }
        let profile = if raw { Profile::Raw } else { Profile::Normalised };
        let mut xml = String::new();
        record.write(&mut xml);
        let fields = transcode(kind, profile, xml.as_bytes()).ok();
        let fields = fields.map(|content| open_envelope(&content));
        prop_assert_eq!(fields, model(kind, profile, &record), "{}", xml);
    }

    #[test]
    fn no_bytes_panic(soup in prop_oneof![any_soup(), any::<Vec<u8>>()]) {
        match transcode(Kind::Labels, Profile::Normalised, &soup) {
            Ok(content) => drop(open_envelope(&content)),
            Err(malformed) => prop_assert!(malformed.offset <= soup.len()),
        }
    }
}

/// The generators would prove nothing if they made only records without an id, or without rules.
#[test]
fn the_generators_reach_the_rules() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut reached = BTreeSet::new();
    for _ in 0..300 {
        let mut record = any_element().new_tree(&mut runner).unwrap().current();
        record.name = "release";
        record.attributes.retain(|(name, _)| *name != "id");
        record.attributes.push(("id", "1".to_owned()));
        let fields = model(Kind::Releases, Profile::Normalised, &record).unwrap();
        for (key, value) in fields.as_object().unwrap() {
            reached.insert((key.clone(), value.is_array()));
        }
    }
    for key in ["artists", "labels", "formats", "genres"] {
        assert!(reached.contains(&(key.to_owned(), true)), "{key}");
    }
}

use serde_json::json;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// `{"v": item}`, read.
fn read(item: &str) -> Result<Value, DecodeError> {
    decode(None, &hex(&format!("a16176{item}"))).map(|object| object["v"].clone())
}

fn kind(name: &str) -> &'static Type {
    keelson_schema::builtin().for_kind("", "v1", name).unwrap()
}

#[test]
fn items_are_the_values_that_upstream_reads() {
    let check = |item: &str, expected: Value| assert_eq!(read(item).unwrap(), expected, "{item}");
    check("0a", json!(10));
    check("1b7fffffffffffffff", json!(i64::MAX));
    check("3b7fffffffffffffff", json!(i64::MIN));
    check("20", json!(-1));
    check("40", json!(""));
    check("d64401020304", json!("AQIDBA=="));
    check("d54401fffefd", json!("Af_-_Q"));
    check("d74401020aff", json!("01020aff"));
    check("d6824161816162", json!(["YQ==", ["b"]]));
    check("7f616161626163ff", json!("abc"));
    check("5f42686543 6c6c6fff", json!("hello"));
    check("9f9f8080ff9f8080ffff", json!([[[], []], [[], []]]));
    check("bf6141bf616101616202ff6142f6ff", json!({"A": {"a": 1, "b": 2}, "B": null}));
    check("a243414243187b6144187c", json!({"ABC": 123, "D": 124}));
    check("fb0000000000000001", json!(5e-324));
    check("fa7f7fffff", json!(f64::from(f32::MAX)));
    check("f94200", json!(3.0));
    check("83f4f5f6", json!([false, true, null]));
    check("c074323030362d30312d30325431353a30343a30355a", json!("2006-01-02T15:04:05Z"));
    check("c11a43b940e5", json!("2006-01-02T15:04:05Z"));
    check("c1f93c00", json!("1970-01-01T00:00:01Z"));
    check("c1fbbff8000000000000", json!("1969-12-31T23:59:58.5Z"));
    check("c120", json!("1969-12-31T23:59:59Z"));
    check("c48221196ab3", json!([-2, 27315]));
    check("d9d9f701", json!(1));
}

#[test]
fn what_json_cannot_say_is_refused_in_upstreams_words() {
    let check = |item: &str, expected: &str| {
        let error = read(item).unwrap_err().to_string();
        assert_eq!(error.trim_start_matches("unable to determine group/version/kind: "), expected, "{item}");
    };
    let unacceptable = "cbor: data item of cbor type primitives is not accepted by protocol:";
    check("f97c00", &format!("{unacceptable} floating-point infinity"));
    check("fbfff0000000000000", &format!("{unacceptable} floating-point infinity"));
    check("fa7fc00000", &format!("{unacceptable} floating-point NaN"));
    check("c1f97e00", &format!("{unacceptable} floating-point NaN"));
    check("f7", &format!("{unacceptable} simple value 23 is not recognized"));
    check("f8ff", &format!("{unacceptable} simple value 255 is not recognized"));
    check("f81f", "cbor: invalid simple value 31 for type primitives");
    check("f814", "cbor: invalid simple value 20 for type primitives");
    check("c249010000000000000000", "cbor: data item of cbor type tag is not accepted by protocol: bignum");
    check(
        "1bffffffffffffffff",
        "cbor: cannot unmarshal positive integer into Go value of type int64 (18446744073709551615 overflows Go's int64)",
    );
    check(
        "3bffffffffffffffff",
        "cbor: cannot unmarshal negative integer into Go value of type int64 (-18446744073709551616 overflows Go's int64)",
    );
    check("6180", "cbor: invalid UTF-8 string");
    check("4180", "cbor: invalid UTF-8 string");
    check("a2414101614102", r#"cbor: found duplicate map key "A" at map element index 1"#);
    check(
        "a25f426865436c6c6fff015f416844656c6c6fff02",
        r#"cbor: found duplicate map key "hello" at map element index 1"#,
    );
    check("a101f6", "cbor: cannot unmarshal a map key into Go value of type string");
    check("a1f6f6", "cbor: cannot unmarshal a map key into Go value of type string");
    check("c06474657874", "cbor: cannot set text for time.Time");
    check("c11b0000003afff44181", "cbor: decoded time cannot be represented in RFC3339 format");
    check(
        "c054323030362d30312d30325431353a30343a30355a",
        "cbor: tag number 0 must be followed by text string",
    );
    check("ff", "cbor: unexpected \"break\" code");
    check("bf6161ff", "cbor: unexpected \"break\" code");
    check("5f6161ff", "cbor: wrong element type for indefinite-length string");
    check("5f5f4161ffff", "cbor: wrong element type for indefinite-length string");
    check("1c", "cbor: invalid initial byte at index 3");
    check("5a7fffffff00", "unexpected EOF");
    check("9b7fffffffffffffff00", "unexpected EOF");
    check("bb7fffffffffffffff", "unexpected EOF");
    check("0000", "cbor: 1 bytes of extraneous data starting at index 4");
    check(&format!("{}00", "81".repeat(200)), "cbor: exceeded max nested level 128");
    check(&format!("{}00", "d6".repeat(200)), "cbor: exceeded max nested level 128");
}

#[test]
fn the_outermost_item_is_a_map() {
    let check = |item: &str, expected: &str| {
        let expected = DecodeError::Cbor(expected.to_owned());
        assert_eq!(decode(None, &hex(item)), Err(expected));
    };
    check("", "EOF");
    check("d9d9f7", "unexpected EOF");
    check("80", "cbor: cannot unmarshal array into Go value of type v1.TypeMeta");
    check("d9d9f720", "cbor: cannot unmarshal negative integer into Go value of type v1.TypeMeta");
    check("d9d9f7a2416101416102", r#"cbor: found duplicate map key "a" at map element index 1"#);
    assert_eq!(decode(None, &hex("f6")), Ok(Value::Null));
}

#[test]
fn objects_are_encoded_as_upstream_encodes_them() {
    let check = |object: Value, expected: &str| {
        assert_eq!(encode(&object), hex(&format!("d9d9f7{expected}")), "{object}")
    };
    check(json!({"bb": 1, "a": 2, "c": 3}), "a3416102416303 42626201");
    check(json!({"": [null, true, false]}), "a14083f6f5f4");
    check(
        json!({"n": [0, 23, 24, -1, i64::MIN, i64::MAX]}),
        "a1416e8600171818203b7fffffffffffffff1b7fffffffffffffff",
    );
    check(json!({"f": [0.5, 1e10, 0.1, 2.0]}), "a1416684f93800fa501502f9fb3fb999999999999af94000");
    let data =
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "aGVsbG8="}, "stringData": {"b": "aGk="}});
    check(
        data,
        "a44464617461a14161d64568656c6c6f446b696e64465365637265744a61706956657273696f6e4276314a737472696e6744617461a141624461476b3d",
    );
}

#[test]
fn bytes_are_bytes_whatever_text_they_were_to_become() {
    let check = |item: &str, expected: Result<&str, &str>| {
        let secret = decode(Some(kind("Secret")), &hex(&format!("a16464617461a14161{item}")));
        let found = secret.map(|secret| secret["data"]["a"].as_str().unwrap_or_default().to_owned());
        assert_eq!(
            found.map_err(|e| e.to_string()),
            expected.map(str::to_owned).map_err(str::to_owned),
            "{item}"
        );
    };
    let text: String = STANDARD.encode(b"hello").bytes().map(|b| format!("{b:02x}")).collect();
    check("d64568656c6c6f", Ok("aGVsbG8="));
    check("d54568656c6c6f", Ok("aGVsbG8="));
    check("d74568656c6c6f", Ok("aGVsbG8="));
    check(&format!("48{text}"), Ok("aGVsbG8="));
    check(
        &format!("68{text}"),
        Err("cbor: cannot unmarshal UTF-8 text string into Go value of type []uint8"),
    );
}

#[test]
fn lists_and_events_are_sent_in_parts() {
    let pods =
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": []});
    let pod = json!({"metadata": {"name": "a"}});
    let mut list = list_head(&pods, 2);
    list.extend(encode_item(Some(kind("Pod")), &pod));
    list.extend(encode_item(None, &pod));
    let mut expected = pods;
    expected["items"] = json!([pod, pod]);
    assert_eq!(decode(None, &list).unwrap(), expected);
    let frame = watch_frame("ADDED", &encode(&pod));
    assert!(frame.starts_with(&hex("d9d9f7a2 4474797065 454144444544 466f626a656374 d9d9f7")));
    assert_eq!(decode(None, &frame).unwrap(), json!({"type": "ADDED", "object": pod}));
}

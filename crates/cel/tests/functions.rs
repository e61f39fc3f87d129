use crate::support::{all_fail, all_true};

#[test]
fn strings_have_the_strings_library() {
    all_true(&[
        "'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')",
        "'hello'.size() == 5 && size('héllo') == 5",
        "'hello'.charAt(4) == 'o' && 'hello'.charAt(5) == ''",
        "'hello mellow'.indexOf('') == 0 && 'hello mellow'.indexOf('ello') == 1 && 'hello mellow'.indexOf('jello') == -1",
        "'hello mellow'.indexOf('ello', 2) == 7 && 'hello mellow'.indexOf('ello', 20) == -1",
        "'hello mellow'.lastIndexOf('') == 12 && 'hello mellow'.lastIndexOf('ello') == 7",
        "'hello mellow'.lastIndexOf('ello', 6) == 1 && 'hello mellow'.lastIndexOf('ello', 20) == -1",
        "'TacoCÆt'.lowerAscii() == 'tacocÆt' && 'TacoCÆt Xii'.upperAscii() == 'TACOCÆT XII'",
        "'hello hello'.replace('he', 'we') == 'wello wello' && 'hello hello'.replace('he', 'we', 1) == 'wello hello'",
        "'hello hello'.replace('', '_') == '_h_e_l_l_o_ _h_e_l_l_o_' && 'hello'.replace('h', '', 0) == 'hello'",
        "'hello hello hello'.split(' ') == ['hello', 'hello', 'hello']",
        "'hello hello hello'.split(' ', 0) == [] && 'hello hello hello'.split(' ', 2) == ['hello', 'hello hello']",
        "'abc'.split('') == ['a', 'b', 'c'] && 'abc'.split('', 2) == ['a', 'bc'] && 'a b'.split(' ', -1) == ['a', 'b']",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco' && 'tacocat'.substring(7) == ''",
        "'  \\ttrim\\n '.trim() == 'trim'",
        "['hello', 'mellow'].join() == 'hellomellow' && ['hello', 'mellow'].join(' ') == 'hello mellow' && [].join() == ''",
        r#"strings.quote('a "b"\n') == '"a \\"b\\"\\n"'"#,
    ]);
    all_fail(&[
        ("'hello'.charAt(6) == ''", "index out of range: 6"),
        ("'hello'.substring(-1) == ''", "index out of range: -1"),
        ("'hello'.substring(3, 2) == ''", "invalid substring range. start: 3, end: 2"),
        ("'hello'.indexOf('h', -1) == 0", "index out of range: -1"),
    ]);
}

#[test]
fn strings_format() {
    all_true(&[
        "'%s is %d%%'.format(['x', 5]) == 'x is 5%'",
        "'%s'.format([[1, 'a', 2.5, null, true]]) == '[1, \"a\", 2.500000, null, true]'",
        "'%s'.format([{'b': 1, 'a': 2}]) == '{\"a\":2, \"b\":1}'",
        "'%.3f'.format([1.2345]) == '1.234' && '%f'.format([1234567.5]) == '1,234,567.500000'",
        "'%.2e'.format([1052.032911275]) == '1.05×10⁰³'",
        "'%b %b'.format([5, true]) == '101 1' && '%o'.format([11]) == '13'",
        "'%x %X %x %x'.format([30, 30, 'hello', b'byte']) == '1e 1E 68656c6c6f 62797465'",
        "'%s %s'.format([duration('1h45m47s'), timestamp('2023-02-03T23:31:20+00:00')]) == '6347s 2023-02-03T23:31:20Z'",
        "'%d'.format([-5]) == '-5' && '%x'.format([-30]) == '-1e'",
    ]);
    all_fail(&[
        ("'%d'.format(['x']) == ''", "decimal clause can only be used on integers, was given string"),
        ("'%s %s'.format(['x']) == ''", "index 1 out of range"),
        ("'x'.format([1]) == ''", "too many arguments supplied to string.format (expected 0, got 1)"),
        ("'%z'.format([1]) == ''", "could not parse formatting clause: unrecognized formatting clause \"z\""),
    ]);
}

#[test]
fn conversions_convert() {
    all_true(&[
        "int('42') == 42 && int(3.9) == 3 && int(-3.9) == -3 && int(7u) == 7 && int(timestamp('1970-01-01T00:01:00Z')) == 60",
        "uint('42') == 42u && uint(3) == 3u && double('1.5') == 1.5 && double(2) == 2.0",
        "string(1) == '1' && string(1.5) == '1.5' && string(true) == 'true' && string(b'abc') == 'abc'",
        "string(1e21) == '1e+21' && string(0.00001) == '1e-05' && string(100.0) == '100'",
        "bool('true') && !bool('F') && bytes('ab') == b'ab'",
        "string(duration('90m')) == '5400s' && string(duration('1.5s')) == '1.5s'",
        "string(timestamp('2020-01-02T03:04:05.5Z')) == '2020-01-02T03:04:05.5Z'",
        "string(ip('1.2.3.4')) == '1.2.3.4' && string(cidr('10.0.0.0/8')) == '10.0.0.0/8'",
    ]);
}

#[test]
fn times_have_parts_and_arithmetic() {
    all_true(&[
        "timestamp('2009-02-13T23:31:30Z').getFullYear() == 2009 && timestamp('2009-02-13T23:31:30Z').getMonth() == 1",
        "timestamp('2009-02-13T23:31:30Z').getDate() == 13 && timestamp('2009-02-13T23:31:30Z').getDayOfMonth() == 12",
        "timestamp('2009-02-13T23:31:30Z').getDayOfYear() == 43 && timestamp('2009-02-13T23:31:30Z').getDayOfWeek() == 5",
        "timestamp('2009-02-13T23:31:20.123Z').getMilliseconds() == 123",
        "timestamp('2009-02-13T23:31:30Z').getHours('America/Phoenix') == 16",
        "timestamp('2009-02-13T23:31:30Z').getMinutes('-00:30') == 1 && timestamp('2009-02-13T23:31:30Z').getHours('+02:00') == 1",
        "duration('3730s').getHours() == 1 && duration('3730s').getMinutes() == 62 && duration('3730s').getSeconds() == 3730",
        "timestamp('2020-01-01T00:00:00Z') + duration('24h') == timestamp('2020-01-02T00:00:00Z')",
        "timestamp('2020-01-02T00:00:00Z') - timestamp('2020-01-01T00:00:00Z') == duration('86400s')",
        "duration('1h') > duration('59m') && duration('-1.5h') == duration('-90m')",
    ]);
}

#[test]
fn lists_have_kubernetes_and_cels_functions() {
    all_true(&[
        "[1, 2, 3].isSorted() && !['b', 'a'].isSorted() && [].isSorted()",
        "[1, 2, 3].sum() == 6 && [1.5, 2.5].sum() == 4.0 && [].sum() == 0",
        "[duration('1s'), duration('2s')].sum() == duration('3s')",
        "[1, 3, 2].min() == 1 && [1, 3, 2].max() == 3 && ['a', 'b'].max() == 'b'",
        "[1, 2, 2].indexOf(2) == 1 && [1, 2, 2].lastIndexOf(2) == 2 && [1].indexOf(5) == -1",
        "[1, 2, 3, 4].slice(1, 3) == [2, 3] && lists.range(3) == [0, 1, 2]",
        "[[1], [2, 3]].flatten() == [1, 2, 3] && [[[1], [2]], [[3]]].flatten(2) == [1, 2, 3]",
        "[1, 2, 3].reverse() == [3, 2, 1] && [1, 2, 1].distinct() == [1, 2] && [3, 1, 2].sort() == [1, 2, 3]",
        "sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 2]) && !sets.intersects([1], [])",
    ]);
    all_fail(&[
        ("[].min() == 1", "min called on empty list"),
        ("[1].slice(0, 2) == []", "cannot slice(0, 2), list is length 1"),
        ("lists.range(100000000).size() == 0", "actual cost limit exceeded"),
    ]);
}

#[test]
fn regular_expressions_are_re2s() {
    all_true(&[
        "'abc123'.matches('[a-z]+[0-9]+') && matches('xay', 'a')",
        r"'abc 123'.find('[0-9]+') == '123' && 'abc'.find('[0-9]+') == ''",
        r"'1 22 333'.findAll('[0-9]+') == ['1', '22', '333'] && '1 22 333'.findAll('[0-9]+', 2) == ['1', '22']",
        r"'ÀÉ'.matches(r'^\pL+$') && !'٣'.matches(r'^\d$')",
    ]);
    all_fail(&[("'a'.matches('(')", "invalid matches argument")]);
}

#[test]
fn urls_parse_as_gos_do() {
    all_true(&[
        "url('https://user:pw@example.com:80/path/a%20b?k=v&k=w&x=1#frag').getScheme() == 'https'",
        "url('https://example.com:80/').getHost() == 'example.com:80' && url('https://example.com:80/').getHostname() == 'example.com'",
        "url('https://example.com:80/').getPort() == '80' && url('https://example.com/').getPort() == ''",
        "url('https://[::1]:80/').getHost() == '[::1]:80' && url('https://[::1]:80/').getHostname() == '::1'",
        "url('https://example.com/path with spaces/').getEscapedPath() == '/path%20with%20spaces/'",
        "url('https://example.com/path?k1=a&k2=b&k1=c').getQuery() == {'k1': ['a', 'c'], 'k2': ['b']}",
        "url('/path').getHost() == '' && url('/path').getEscapedPath() == '/path'",
        "isURL('https://example.com') && isURL('/absolute') && !isURL('https://a:b:c/') && !isURL('../relative')",
        "url('https://example.com/a#b') == url('https://example.com/a#b')",
    ]);
    all_fail(&[(
        "url('../rel').getHost() == ''",
        "URL parse error during conversion from string: parse \"../rel\": invalid URI for request",
    )]);
}

#[test]
fn addresses_and_networks() {
    all_true(&[
        "isIP('127.0.0.1') && isIP('::1') && !isIP('127.0.0.256') && !isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0')",
        "ip('127.0.0.1').family() == 4 && ip('::1').family() == 6 && ip('127.0.0.1').isLoopback()",
        "ip('0.0.0.0').isUnspecified() && ip('169.254.169.254').isLinkLocalUnicast() && ip('224.0.0.1').isLinkLocalMulticast()",
        "ip('8.8.8.8').isGlobalUnicast() && !ip('127.0.0.1').isGlobalUnicast() && ip('2001:db8::abcd').isGlobalUnicast()",
        "ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')",
        "ip('2001:db8::abcd') == ip('2001:DB8::ABCD')",
        "isCIDR('192.168.0.0/24') && !isCIDR('192.168.0.0/33') && !isCIDR('192.168.0.0/024')",
        "cidr('192.168.0.0/24').containsIP('192.168.0.1') && cidr('192.168.0.0/24').containsIP(ip('192.168.0.1'))",
        "cidr('192.168.0.0/24').containsCIDR('192.168.0.0/25') && !cidr('192.168.0.0/24').containsCIDR(cidr('192.168.0.0/23'))",
        "cidr('192.168.1.1/24').ip() == ip('192.168.1.1') && cidr('192.168.1.1/24').masked() == cidr('192.168.1.0/24')",
        "cidr('::1/128').prefixLength() == 128 && type(cidr('::1/128')) == net.CIDR",
    ]);
    all_fail(&[
        (
            "ip('x').family() == 4",
            "IP Address \"x\" parse error during conversion from string: ParseAddr(\"x\"): unable to parse IP",
        ),
        ("cidr('x').prefixLength() == 4", "network address parse error during conversion from string"),
    ]);
}

#[test]
fn quantities_versions_and_formats() {
    all_true(&[
        "isQuantity('1.3Gi') && !isQuantity('1,3G') && quantity('500k').isGreaterThan(quantity('50k'))",
        "quantity('50k').isLessThan(quantity('500k')) && quantity('1000m').compareTo(quantity('1')) == 0",
        "quantity('50k').add(quantity('20')) == quantity('50020') && quantity('50k').sub(20000) == quantity('30k')",
        "quantity('2').asInteger() == 2 && !quantity('50m').isInteger() && quantity('50.5').asApproximateFloat() == 50.5",
        "sign(quantity('-1')) == -1 && quantity('1k') == quantity('1000')",
        "isSemver('1.2.3') && !isSemver('1.2') && isSemver('v1.2', true) && semver('v01.2', true) == semver('1.2.0')",
        "semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
        "semver('1.2.3').isGreaterThan(semver('1.2.3-alpha')) && semver('1.0.0').compareTo(semver('2.0.0')) == -1",
        "!format.dns1123Label().validate('my-label').hasValue() && format.dns1123Label().validate('My_Label').hasValue()",
        "!format.named('dns1123Subdomain').value().validate('a.b').hasValue() && !format.named('nope').hasValue()",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue() && format.uuid().validate('x').value() == ['does not match the UUID format']",
        "!format.date().validate('2021-01-01').hasValue() && !format.byte().validate('aGVsbG8=').hasValue() && format.uri().validate('x y').hasValue()",
        "!format.datetime().validate('2021-01-01T00:00:00Z').hasValue() && !format.dns1123LabelPrefix().validate('a-').hasValue()",
    ]);
    all_fail(&[("quantity('x').isInteger()", "quantities must match the regular expression")]);
}

#[test]
fn the_authorizer_is_asked_what_the_expression_says() {
    use keelson_cel::*;
    struct Recorder;
    impl Authorizer for Recorder {
        fn authorize(&self, check: &Check) -> Decision {
            let path = check.path.as_deref().unwrap_or_default();
            Decision {
                allowed: check.verb == "create",
                reason: format!(
                    "{:?} {path} {} {} {} {} {} {} {}",
                    check.subject,
                    check.group,
                    check.resource,
                    check.subresource,
                    check.namespace,
                    check.name,
                    check.field_selector,
                    check.label_selector
                ),
                error: None,
            }
        }
    }
    let env = Env::builder().variable("authorizer", Declared::of(Type::AUTHORIZER)).build();
    let variables = Variables::new().with("authorizer", Value::authorizer(&Recorder));
    for (source, expected) in [
        ("authorizer.group('apps').resource('deployments').check('create').allowed()", "true"),
        ("authorizer.group('').resource('pods').check('get').allowed()", "false"),
        (
            "authorizer.group('apps').resource('deployments').subresource('status').namespace('ns').name('n')\
             .fieldSelector('f=1').labelSelector('l=1').check('get').reason()",
            "Requester  apps deployments status ns n f=1 l=1",
        ),
        (
            "authorizer.serviceAccount('ns', 'sa').path('/healthz').check('get').reason()",
            "ServiceAccount { namespace: \"ns\", name: \"sa\" } /healthz       ",
        ),
        ("authorizer.path('/x').check('get').errored()", "false"),
    ] {
        let value = env.compile(source).unwrap().evaluate(&variables, &mut Budget::new(RUNTIME_BUDGET));
        assert_eq!(value.unwrap().to_string(), expected, "{source}");
    }
    let thrice = "authorizer.path('/x').check('get').allowed() || authorizer.path('/y').check('get').allowed() || \
                  authorizer.path('/z').check('get').allowed()";
    let outcome = env.compile(thrice).unwrap().evaluate(&variables, &mut Budget::new(RUNTIME_BUDGET));
    assert_eq!(outcome.unwrap_err(), EvalError::CallLimit, "two checks fit into the limit of a call");
}

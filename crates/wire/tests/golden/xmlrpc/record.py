#!/usr/bin/env python3
"""Records what Python's own key/value server answers to raw XML-RPC requests.

Run by hand, with Python 3.11:

    python3.11 record.py > python-3.11

Each case is posted over HTTP to a server of its own, so that none depends on another; a case with
several requests runs against one. The output is for the test xmlrpc_golden.rs. Each line is a word, a
tab and bytes: `request` and `response` are whole bodies, `value` and `fault` what stands between the
two halves of the frame above them. A body is only cut so when it is exactly that.
"""
import http.client
import sys
import threading
from xmlrpc.client import Fault, dumps
from xmlrpc.server import SimpleXMLRPCServer


class KeyValueServer:
    """The example of the tutorial."""

    _rpc_methods_ = ['get', 'set', 'delete', 'exists', 'keys']

    def __init__(self):
        self._data = {}
        self._serv = SimpleXMLRPCServer(('127.0.0.1', 0), allow_none=True, logRequests=False)
        for name in self._rpc_methods_:
            self._serv.register_function(getattr(self, name))
        self._serv.register_introspection_functions()
        self._serv.register_multicall_functions()

    def get(self, name):
        return self._data[name]

    def set(self, name, value):
        self._data[name] = value

    def delete(self, name):
        del self._data[name]

    def exists(self, name):
        return name in self._data

    def keys(self):
        return list(self._data)


def post(server, body):
    connection = http.client.HTTPConnection(*server._serv.server_address)
    connection.request('POST', '/RPC2', body, {'Content-Type': 'text/xml'})
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    return answer.read()


def call(method, *params):
    return dumps(params, method, allow_none=True).encode()


def value(xml):
    """Sets what `xml` says and reads it again."""
    if isinstance(xml, str):
        xml = xml.encode()
    begin = (b'<?xml version="1.0"?><methodCall><methodName>set</methodName><params>'
             b'<param><value>k</value></param><param>')
    return [begin + xml + b'</param></params></methodCall>', call('get', 'k')]


def bare(xml):
    return '<methodCall><methodName>exists</methodName>' + xml + '</methodCall>'


DEEP = 100_000

CASES = {
    # The methods.
    'get of nothing': [call('get', 'nokey')],
    'get with a quote': [call('get', "it's")],
    'get with both quotes': [call('get', 'it\'s "it"')],
    'get of what cannot be printed': [call('get', 'a\u200b\u00e9\n\t\\')],
    'set and get': [call('set', 'k', 'v'), call('get', 'k')],
    'overwrite keeps the place': [call('set', 'a', 1), call('set', 'b', 2), call('set', 'a', 3),
                                  call('keys')],
    'delete': [call('set', 'k', 'v'), call('delete', 'k'), call('exists', 'k'), call('delete', 'k')],
    'keys of nothing': [call('keys')],
    'exists of nothing': [call('exists', 'k')],
    'equal keys': [call('set', 1, 'one'), call('get', True), call('get', 1.0), call('keys')],
    'nil as a key': [call('set', None, 'v'), call('keys'), call('get', None)],
    'float key': [call('set', 1.5, 'v'), call('keys'), call('get', 2.5)],
    'list as a key': [call('set', [1], 'v')],
    'dict as a key': [call('set', {'a': 1}, 'v')],
    'bytes as a key': [call('set', b'a', 'v')],
    'unknown method': [call('nope')],
    'empty method': ['<methodCall><methodName></methodName></methodCall>'],
    'private method': [call('_dispatch')],
    'too few': [call('get')],
    'two too few': [call('set')],
    'too many': [call('get', 'a', 'b')],
    'none expected': [call('keys', 1)],
    'list of methods': [call('system.listMethods')],
    'signature': [call('system.methodSignature', 'get')],
    'help': [call('system.methodHelp', 'get')],
    'multicall': [call('system.multicall', [
        {'methodName': 'set', 'params': ['a', 1]}, {'methodName': 'get', 'params': ['a']},
        {'methodName': 'get', 'params': ['b']}, {'methodName': 'nope', 'params': []}])],
    # Values.
    'string': value('<value><string>a &amp; &lt;b&gt; "c" \'d\'</string></value>'),
    'no type': value('<value>plain &#65;&#x42;</value>'),
    'empty value': value('<value/>'),
    'empty string': value('<value><string/></value>'),
    'spaces around': value('<value>  a  </value>'),
    'a type after text': value('<value>text<int>5</int>text</value>'),
    'cdata': value('<value><![CDATA[<a>&amp;]]]]><![CDATA[>]]></value>'),
    'comments': value('<value>a<!-- - b -->c<?pi?>d<?pi data??></value>'),
    'line ends': value('<value>a\r\nb\rc\nd&#13;&#10;e</value>'),
    'utf-8': value('<value>Grüße, 世界 🦀</value>'),
    'wide entities': value('<value>&#x1F980;&#8364;</value>'),
    'int': value('<value><int>-5</int></value>'),
    'i4': value('<value><i4>+2147483647</i4></value>'),
    'i4 too small': value('<value><i4>-2147483649</i4></value>'),
    'i8': value('<value><i8>2147483648</i8></value>'),
    'i8 small': value('<value><i8>7</i8></value>'),
    'i1 and i2': value('<value><array><data><value><i1>1</i1></value><value><i2>2</i2></value>'
                       '</data></array></value>'),
    'biginteger': value('<value><ex:biginteger xmlns:ex="e">12</ex:biginteger></value>'),
    'beyond 64 bits': value('<value><biginteger>123456789012345678901234567890</biginteger></value>'),
    'underscores': value('<value><int> 1_0 </int></value>'),
    'underscores doubled': value('<value><int>1__0</int></value>'),
    'no int': value('<value><int>abc</int></value>'),
    'no int quoted': value('<value><int>it\'s\n</int></value>'),
    'no int long': value('<value><int>' + 'x' * 300 + '</int></value>'),
    'empty int': value('<value><int/></value>'),
    'float as int': value('<value><int>1.0</int></value>'),
    'boolean': value('<value><array><data><value><boolean>1</boolean></value>'
                     '<value><boolean>0</boolean></value></data></array></value>'),
    'no boolean': value('<value><boolean>true</boolean></value>'),
    'boolean with a space': value('<value><boolean> 1</boolean></value>'),
    'double': value('<value><double>-12.214</double></value>'),
    'doubles': value('<value><array><data>' + ''.join(
        '<value><double>%s</double></value>' % text for text in
        ['0', '-0', '1e300', '1E-7', ' 5. ', '.5', '1_0.5', '100000000000000000', '1e16', '1e15',
         '0.0001', '0.00001', 'nan', '-inf', 'Infinity', '1e400', '4.9e-324', '0.1',
         '123456789.123456789']) + '</data></array></value>'),
    'ex:float': value('<value><ex:float>1.25</ex:float></value>'),
    'no double': value('<value><double>1,5</double></value>'),
    'empty double': value('<value><double/></value>'),
    'bigdecimal': value('<value><bigdecimal>1.10</bigdecimal></value>'),
    'no bigdecimal': value('<value><bigdecimal>x</bigdecimal></value>'),
    'nil': value('<value><nil/></value>'),
    'ex:nil': value('<value><ex:nil/></value>'),
    'date-time': value('<value><dateTime.iso8601>19980717T14:08:55</dateTime.iso8601></value>'),
    'date-time with a zone': value(
        '<value><dateTime.iso8601> 1998-07-17T14:08:55Z\n</dateTime.iso8601></value>'),
    'no date-time': value('<value><dateTime.iso8601>soon</dateTime.iso8601></value>'),
    'date-time with a tag': value('<value><dateTime.iso8601>&lt;i></dateTime.iso8601></value>'),
    'date-time as a key': ['<methodCall><methodName>get</methodName><params><param><value>'
                           '<dateTime.iso8601>1</dateTime.iso8601></value></param></params>'
                           '</methodCall>'],
    'ex:dateTime': value('<value><ex:dateTime>1998-07-17T14:08:55Z</ex:dateTime></value>'),
    'base64': value('<value><base64> Zm9v\nYmFy </base64></value>'),
    'base64 of nothing': value('<value><base64/></value>'),
    'base64 of lines': value('<value><base64>' + 'AAECAwQF' * 20 + '</base64></value>'),
    'base64 with rubbish': value('<value><base64>Zm-9v!Yg=</base64></value>'),
    'base64 behind the end': value('<value><base64>Zg==Zm9v</base64></value>'),
    'base64 cut': value('<value><base64>Zm9vY</base64></value>'),
    'base64 unpadded': value('<value><base64>Zm9vYg</base64></value>'),
    'base64 not ascii': value('<value><base64>Zé9v</base64></value>'),
    'base64 not ascii twice': value('<value><base64>Zm9véü</base64></value>'),
    'base64 far from ascii': value('<value><base64>世</base64></value>'),
    'array': value('<value><array><data><value>a</value><value><int>1</int></value></data></array>'
                   '</value>'),
    'array without data': value('<value><array><value>a</value></array></value>'),
    'empty array': value('<value><array><data/></array></value>'),
    'nested': value('<value><array><data><value><array><data><value><struct><member><name>a</name>'
                    '<value><nil/></value></member></struct></value></data></array></value></data>'
                    '</array></value>'),
    'struct': value('<value><struct><member><name>b</name><value>1</value></member><member>'
                    '<name>a &lt;</name><value><boolean>1</boolean></value></member></struct></value>'),
    'empty struct': value('<value><struct/></value>'),
    'a name twice': value('<value><struct><member><name>a</name><value>1</value></member><member>'
                          '<name>b</name><value>2</value></member><member><name>a</name>'
                          '<value>3</value></member></struct></value>'),
    'a member without a value': value('<value><struct><member><name>a</name></member></struct></value>'),
    'a list as a name': value('<value><struct><value><array/></value><value>v</value></struct></value>'),
    'a struct as a name': value('<value><struct><value><struct/></value><value>v</value></struct></value>'),
    'an int as a name': value('<value><struct><value><int>1</int></value><value>v</value></struct></value>'),
    'unknown type': value('<value><foo>1</foo></value>'),
    'unknown type quoted': value('<value><é.b>1</é.b></value>'),
    'unknown type with a prefix': value('<value><a:b:foo/></value>'),
    'data is no type': value('<value><data/></value>'),
    'value in value': value('<value><value>a</value></value>'),
    'type in type': value('<value><string>a<int>5</int></string></value>'),
    # Documents.
    'no params': [bare('')],
    'empty params': [bare('<params/>')],
    'unknown tags': [bare('<foo>bar</foo><params a="b"><x><param><value>k</value></param></x></params>')],
    'name behind params': ['<methodCall><params/><methodName> keys </methodName></methodCall>',
                           '<methodCall><params/><methodName>keys</methodName></methodCall>'],
    'name of an element': ['<x:a xmlns:x="y"><x:methodName>keys</x:methodName></x:a>'],
    'only a name': ['<methodName>keys</methodName>'],
    'two names': ['<a><methodName>nope</methodName><methodName>keys</methodName></a>'],
    'no name': ['<methodCall><params/></methodCall>'],
    'nothing of ours': ['<html><body>hello</body></html>'],
    'a response': ['<methodResponse><params><param><value>a</value></param></params></methodResponse>'],
    'a fault': ['<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>7'
                '</int></value></member><member><name>faultString</name><value>x</value></member>'
                '</struct></value></fault></methodResponse>'],
    'byte order mark': [b'\xef\xbb\xbf' + call('keys'), b'\xef\xbb\xbf<a></b>',
                        b'\xef\xbb\xbf\n<?xml version="1.0"?><a/>'],
    'latin-1': [b"<?xml version='1.0' encoding='iso-8859-1'?><methodCall><methodName>get</methodName>"
                b"<params><param><value>Gr\xfc\xdfe \x80</value></param></params></methodCall>",
                b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9\xe9</b>",
                b"<?xml version='1.0' encoding='latin1'?><methodName>\xe9</methodName>"],
    'us-ascii': [b"<?xml version='1.0' encoding='us-ascii'?><methodName>keys</methodName>",
                 b"<?xml version='1.0' encoding='US-ASCII'?><methodName>\xc3\xa9</methodName>"],
    'unknown encoding': [b"<?xml version='1.0' encoding='foo'?><methodName>keys</methodName>"],
    'other encoding': [b"<?xml version='1.0' encoding='windows-1252'?><methodName>keys</methodName>"],
    'declared utf-16': ["<?xml version='1.0' encoding='utf-16'?><methodName>keys</methodName>"],
    'utf-16': ["<methodName>keys</methodName>".encode('utf-16')],
    'declarations': ['<?xml version="1.1" encoding="utf-8" standalone="yes" ?><methodName>keys</methodName>',
                     "<?xml version = '2.0-x'?><methodName>keys</methodName>",
                     '<?xml?><a/>', '<?xml ?><a/>', '<?xml encoding="utf-8"?><a/>',
                     '<?xml version="1.0" encoding=""?><a/>', '<?xml version="1.0" standalone="maybe"?><a/>',
                     '<?xml version="1.0"encoding="utf-8"?><a/>', '<?xml version="1.0" foo="utf-8"?><a/>',
                     '<?xml version="1.0" standalone="no" x?><a/>', '<?xml version=1?><a/>',
                     '<?xml version="1 0"?><a/>', '<?xml version x?><a/>', '<?xml =""?><a/>',
                     '<?xml version="1.0', '<?xml version="1.0\x01"?>', '<?XML version="1.0"?><a/>',
                     ' <?xml version="1.0"?><a/>', '<!-- --><?xml version="1.0"?><a/>',
                     '<a><?xml version="1.0"?></a>', '<a/><?xml version="1.0"?>'],
    # What is no XML.
    'empty': [''],
    'before the root': ['hello', 'hello world', 'foo=bar', '{"method": "get"}', '[1]', '123', '12+', 'a+ ',
                        '"a"', '"a"b', "'a", '"\x01"', '%a;', '%a', '% a', '%1', '#a', '#a b', '#1', '#', ')',
                        ')*', ')a', ']', ']]', ']]>', ',', '(', '|', '>', '&amp;', '+', '=', '\x01', '\n\n x',
                        ' \r\n ', '<', '<1', '< a>', '</a>', '<!', '<!a', '<!a ', '<!ENTITY% a', '<!x%a', '<!1',
                        '<![CDATA[', '<!-', '<!-a', '<!--', '<!-- a', '<!-- a -- b -->', '<!--\x02-->', '<?',
                        '<?1?>', '<?a', '<?a b', '<?a?b?>', '<?a!?>', '<!-- ok --><?a b?>\n', 'é', '·', '€', '×', '世', '々',
                        '-', '.a', 'a:b', 'a*', '1*'],
    'behind the root': ['<a/>x', '<a/> \n<b/>', '<a/>&', '<a/><!-- a --><?b?> ', '<a></a></a>', '<a/><!DOCTYPE a>',
                        '<a/>\x00', '<a/>{', '<a/><!-- ', '<a/>%a;', '<a/><', '<a/>\r'],
    'in the root': ['<a>', '<a', '<a>\n  text', '<a>text\r', '<a>text]', '<a>text]]', '<a>]]>', '<a>x]]]>', '<a>\x01',
                    '<a>b\x0cc</a>', '<a></b>', '<a>\n <b></a>', '<a></a b>', '<a></a', '<a></1>', '<a></>', '<a><>',
                    '<a><1/>', '<a></a\n >', '<a/ >', '<a b>', '<a b=c>', '<a b="c', '<a b="c"d="e">', '<a b="<">',
                    "<a b='\x01'>", '<a b="1" b="2">', '<a\n\tb="1" c="&foo;" b="2">', '<a b="&#0;">', '<a b="&#1">',
                    '<a b="&;">', '<a b = "1" />x', '<a b>c', '<a 1="2">', '<a b="1"/', '<a b="1"/x', '<a<b>', '<a&b>',
                    '<a>&foo;', '<a>\n&nbsp;', '<a>& b', '<a>&;', '<a>&#;', '<a>&#x;', '<a>&#X41;', '<a>&#1a;', '<a>&#xg;',
                    '<a>&#0;', '<a>&#55296;', '<a>&#x110000;', '<a>&#xFFFE;', '<a>&#99999999999999999999;', '<a>&lt',
                    '<a>&a', '<a><!DOCTYPE a>', '<a><!', '<a><!x', '<a><!-', '<a><!-- -', '<a><!-- --->', '<a><![',
                    '<a><![CDAT', '<a><![cdat', '<a><![CDATx[', '<a><![cdata[x]]>', '<a><![CDATA[', '<a><![CDATA[x]',
                    '<a><![CDATA[x]]', '<a><![CDATA[x]]]', '<a><![CDATA[x\r', '<a><![CDATA[\x01', '<a><?', '<a><?b',
                    '<a><?b c', '<a><?xMl b?>', '<a>\r\n\r<b></c>', '<a>äöü</b>', '<a>\U0001f980</b>', '<é></é>x',
                    '<a>\ufffe</a>', '<a>\uffff'],
    'broken characters': [b'<a>\xff</a>', b'<a>\xe9t\xe9</a>', b'<a>\xc3', b'<a>\xe2\x82', b'<a>\xe2A', b'<a>\xc0\x80',
                          b'<a>\xed\xa0\x80', b'<a b="\xff">', b'<a><!-- \xff', b'<a><![CDATA[ab\xff', b'<a><![CDATA[ab\xc3',
                          b'<a\xff', b'<a\xc3', b'\xff', b'\xef', b'\xef\xbb', b'\x00', b'\xc3', b'\xc3\xa9', b'\xe9abc', b'<a/>\xff', b'<a/>\xc3', b'<?a \xff', b'<a>\x00'],
    # An error of the values comes before an error of the form behind it, and after one before it.
    'order': ['<a><value><int>x</int></value></b>', '<a></b><value><int>x</int></value>', '<value><foo', '<value><foo>',
              '<value><foo/></x>', '<value><foo a="1" a="2">'],
    # Attacks.
    'doctype': ['<!DOCTYPE methodCall><methodCall><methodName>keys</methodName></methodCall>'],
    'entities': ['<!DOCTYPE a [<!ENTITY b "keys">]><methodName>&b;</methodName>'],
    'deep': ['<methodCall><methodName>set</methodName><params><param><value>k</value></param><param>'
             + '<value><array><data>' * DEEP + '</data></array></value>' * DEEP + '</param></params></methodCall>'],
    'a million digits': value('<value><int>' + '1' * 1_000_000 + '</int></value>'),
}


def main():
    assert sys.version_info[:2] == (3, 11), 'the texts of faults are those of Python 3.11'
    sys.setrecursionlimit(3000)
    count = 0
    print('python\t%s' % sys.version.split()[0])
    frames = {'value': frame(dumps(('#',), methodresponse=True).replace('<value><string>#</string></value>\n', '#')),
              'fault': frame(dumps(Fault(1, '#')))}
    for word, halves in frames.items():
        for half in halves:
            print('frame of %s\t%s' % (word, shown(half)))
    for name, requests in CASES.items():
        server = KeyValueServer()
        threading.Thread(target=server._serv.serve_forever, daemon=True).start()
        print('case\t%s' % name)
        for request in requests:
            if isinstance(request, str):
                request = request.encode()
            answer = post(server, request)
            count += 1
            print('request\t%s' % shown(request))
            word = 'response'
            for kind, (before, after) in frames.items():
                if answer.startswith(before) and answer.endswith(after):
                    word, answer = kind, answer[len(before):-len(after)]
            print('%s\t%s' % (word, shown(answer)))
        server._serv.shutdown()
        server._serv.server_close()
    print('%d cases, %d requests' % (len(CASES), count), file=sys.stderr)


def frame(document):
    return document.encode().split(b'#')


def shown(data):
    r"""What is no printable ASCII as \xNN, and many repetitions as \{count*piece}."""
    for piece in LONG:
        run = piece * DEEP
        if run in data:
            before, after = data.split(run, 1)
            return '%s\\{%d*%s}%s' % (shown(before), DEEP, shown(piece), shown(after))
    if len(data) > 500_000:
        run = data[data.index(b'1' * 1000):].split(b'<')[0]
        before, after = data.split(run, 1)
        return '%s\\{%d*1}%s' % (shown(before), len(run), shown(after))
    return ''.join(chr(b) if 0x20 <= b < 0x7f and b != 0x5c else '\\x%02x' % b for b in data)


LONG = [b'<value><array><data>', b'</data></array></value>']

main()

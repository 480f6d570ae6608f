# Catches: a request without a good key that reaches an engine, or gets
# anything but 401 in the API's form before its body was read; a key in a log;
# a key that is revoked, added or expired and goes on as before; a bad key file
# that takes the good one's place; a model that a key or a tenant may not use.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use POSIX ();
use Test::More;
use Time::HiRes 'sleep';

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0755, $dir;
my $file = "$dir/keys";
my $tool = LLM->root . '/conf/llm-key';

sub tool {
    my $out = qx($tool @_ 2>&1);
    chomp $out;
    return $out;
}

my $key = tool("add $file acme id=acme-1");
like($key, qr/^sk-[\w-]{43}$/, 'llm-key prints a key');
my $other = tool("add $file other models=small,canned");
my $old = tool("add $file acme id=old expires=2020-01-01");
my $denied = tool("add $file acme id=denied models=large");
chmod 0644, $file;
like(tool("list $file"), qr/^acme-1 acme\nother-[0-9a-f]{8} other models=small,canned\n/,
    'and lists ids');
like(tool("add $file acme id=acme-1"), qr/already/, 'no id is there twice');
unlike(qx(cat $file), qr/sk-/, 'the file holds no key');

for my $bad ('expires=tomorrow', 'expires=2027-02-30', 'expires=2027-01-31T25:00:00Z') {
    like(tool("add $file acme id=bad $bad"), qr/expires= takes a day/, "refused: $bad");
}
like(tool("add $file '' id=bad"), qr/a tenant has a name/, 'refused: no tenant');
tool("add $file acme id=$_") for '2024.1', '2024.10';
tool("revoke $file 2024.1");
like(tool("list $file"), qr/^2024\.10 acme$/m, 'a number is text: another like it stays');
tool("revoke $file 2024.10");
unlike(tool("list $file"), qr/2024|bad/, 'and goes when it is meant');

my $t = LLM->new(engine => [qw(--device null --model_name canned)], workers => 2,
    conf => "    llm_key_file $file check=100ms;\n" . <<'CONF', server => <<'SERVER');
    llm_tenant default { max_tokens 20; }
    llm_tenant acme { weight 3; priority 1; max_tokens 5; max_n 2; queue 10 timeout=5s; }
    llm_tenant short { max_input_tokens 20; }
    llm_tenant poor { models none; concurrent 1; }
    log_format keys '$uri $status $llm_tenant/$llm_key_id $llm_error';
    access_log logs.keys keys;
    map $http_x_subject $tenant { default ""; CN=good good; CN=bad "no name"; CN=poor poor; CN=short short; }
    limit_req_zone $llm_tenant zone=tenants:1m rate=1r/m;
    limit_conn_zone $llm_tenant zone=conns:1m;
CONF
        location /open/ { llm_pass main; llm_auth off; }
        location /maybe/ { llm_pass main; llm_auth optional; }
        location /header/ { llm_pass main; llm_key $http_x_token; }
        location /subject/ { llm_pass main; llm_tenant_key $tenant; }
        location /any/ { llm_pass main; satisfy any; allow 127.0.0.1; deny all; }
        location /none/ { llm_pass main; satisfy any; deny all; }
        location /conns/ { llm_pass main; limit_conn conns 1; limit_conn_status 429; }
        location /limited/ { llm_pass main; limit_req zone=tenants; limit_req_status 429; }
SERVER

my %body = (model => 'canned', prompt => 'x', max_tokens => 3);

sub ask {
    my ($path, $more, %h) = @_;
    return $t->post("$path/completions", { %body, %{ $more // {} } }, %h);
}

sub bearer { (Authorization => "Bearer $_[0]") }
sub code { my $r = shift; LLM->decode($r->{body})->{error}{code} }

# --- who may in ------------------------------------------------------------

is(ask('/v1', {}, bearer($key))->{status}, 200, 'a good key opens');
is(ask('/v1', {}, Authorization => "bearer   $key")->{status}, 200, 'whatever the case');
is(ask('/v1', {}, 'X-Api-Key' => $key)->{status}, 200, 'x-api-key too');
is(ask('/header', {}, 'X-Token' => $key)->{status}, 200, 'llm_key says where it is');
is(ask('/header', {}, bearer($key))->{status}, 401, 'and then it is nowhere else');
is(ask('/open')->{status}, 200, 'llm_auth off');
is(ask('/maybe')->{status}, 200, 'optional: none');
is(ask('/maybe', {}, bearer($key))->{status}, 200, 'optional: a good one');
is(ask('/maybe', {}, bearer('sk-wrong'))->{status}, 401, 'optional: a wrong one');

my $r = ask('/v1');
is($r->{status}, 401, 'no key');
is(code($r), 'missing_api_key', 'is said in the form of the API');
is($r->{headers}{'www-authenticate'}, 'Bearer', 'with the scheme');
ok($r->{headers}{'x-request-id'}, 'and the request id');

for ([wrong => bearer('sk-wrong')], [half => bearer(substr $key, 0, -1)],
    [long => bearer('x' x 600)], [basic => (Authorization => "Basic $key")],
    [digest => bearer(sha256_hex($key))], [empty => (Authorization => '')],
    [quoted => bearer("\"$key\"")], [null => bearer("\x80\xff")]) {
    my ($name, @h) = @$_;
    $r = ask('/v1', {}, @h);
    is($r->{status}, 401, "$name: 401");
    like(code($r), qr/^(?:invalid|missing)_api_key$/, "$name: its code");
}
$r = ask('/v1', {}, bearer($old));
is($r->{status}, 401, 'expired');
like($r->{body}, qr/expired/, 'and told so');

# before the body: half of one is enough for an answer
{
    my $s = $t->connect;
    print $s "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        . "Connection: close\r\n\r\n{";
    my $stream = LLM::Stream->new($s);
    is($stream->status(5), 401, 'it is said before the body was read');
}

# a refused request leaves a kept connection usable
{
    my $s = $t->connect;
    for my $i (1 .. 3) {
        print $s $t->request_text('POST', '/v1/completions', { %body },
            Connection => 'keep-alive', $i == 2 ? bearer($key) : ());
        my $stream = LLM::Stream->new($s);
        is($stream->whole->{status}, $i == 2 ? 200 : 401, "kept alive: $i");
    }
}

is($t->get('/v1/models')->{status}, 401, 'the list of models needs a key too');
is($t->get('/v1/models', bearer($key))->{status}, 200, 'and opens with it');

# --- beside stock modules --------------------------------------------------

is(ask('/any')->{status}, 200, 'satisfy any: by address');
is(ask('/none', {}, bearer($key))->{status}, 200, 'satisfy any: by key');
like(ask('/none')->{status}, qr/^40[13]$/, 'satisfy any: neither');
is(ask('/subject', {}, 'X-Subject' => 'CN=good')->{status}, 200, 'a trusted name');
is(ask('/subject', {}, 'X-Subject' => 'CN=bad')->{status}, 401, 'that is none');
is(ask('/subject')->{status}, 401, 'no name and no key');
is(ask('/subject', {}, bearer($key))->{status}, 200, 'no name but a key');
$t->allow(qr/is no tenant's name/);
is(ask('/limited', {}, bearer($key))->{status}, 200, 'limit_req by $llm_tenant: first');
is(ask('/limited', {}, bearer($key))->{status}, 429, 'second');
is(ask('/limited', {}, bearer($other))->{status}, 200, 'another tenant has its own');
my $one = $t->connect;
print $one $t->request_text('POST', '/conns/completions', { %body, max_tokens => 5,
    stream => JSON::PP::true() }, bearer($key), 'Content-Length' => 500); # its body never ends
ok($t->wait_for(sub { ask('/conns', {}, bearer($key))->{status} == 429 }, 5),
    'limit_conn by $llm_tenant: one at a time');
is(ask('/conns', {}, bearer($other))->{status}, 200, 'another tenant has its own');
close $one;
ok($t->wait_for(sub { ask('/conns', {}, bearer($key))->{status} == 200 }, 5), 'and again');

# --- what they may do ------------------------------------------------------

$r = ask('/v1', { max_tokens => 50 }, bearer($key));
is(LLM->decode($r->{body})->{usage}{completion_tokens}, 5, "the tenant's max_tokens");
$r = ask('/v1', { max_tokens => 50 }, bearer($other));
is(LLM->decode($r->{body})->{usage}{completion_tokens}, 20, "default's for one without block");
is(ask('/v1', { n => 2 }, bearer($key))->{status}, 200, 'max_n');
$r = ask('/v1', { n => 3 }, bearer($key));
is($r->{status}, 400, 'and one more');
is(LLM->decode($r->{body})->{error}{param}, 'n', 'names the field');

$r = ask('/v1', {}, bearer($denied));
is($r->{status}, 403, 'a model that the key may not use');
is(code($r), 'model_not_allowed', 'its code');
is(ask('/v1', {}, bearer($other))->{status}, 200, 'one that it may');
$r = ask('/subject', {}, 'X-Subject' => 'CN=poor');
is($r->{status}, 403, 'nor may a tenant');
is_deeply(LLM->decode($t->get('/v1/models', bearer($denied))->{body})->{data}, [],
    'and it is not listed');
is($t->get('/v1/models/canned', bearer($denied))->{status}, 404, 'nor there by name');

# --- the file changes ------------------------------------------------------

sub everywhere {    # as both workers see it, a few times
    my ($key, $status) = @_;
    my $same = 0;
    return $t->wait_for(sub {
        $same = ask('/v1', {}, bearer($key))->{status} == $status ? $same + 1 : 0;
        $same >= 12;
    }, 10);
}

my $new = tool("add $file acme id=new");
is(ask('/v1', {}, bearer($key))->{status}, 200, 'while it is taken up the others work');
ok(everywhere($new, 200), 'a new key works without a reload');
is(tool("revoke $file new"), '', 'revoked');
ok(everywhere($new, 401), 'and works no more');
like(tool("revoke $file new"), qr/no key of the id new/, 'it is gone');

my $good = qx(cat $file);
for ([word => "nonsense\n"], [twice => $good . $good], [cut => substr $good, 0, -30],
    [zero => "\0" x 100]) {
    my ($name, $text) = @$_;
    open my $f, '>', "$file.tmp" or die $!;
    print $f $text;
    close $f;
    my $before = () = $t->error_log =~ /keys", line \d+/g;
    rename "$file.tmp", $file or die $!;
    ok($t->wait_for(sub { (() = $t->error_log =~ /keys", line \d+/g) >= $before + 2 }, 10),
        "$name: both workers name the line");
    ok(everywhere($key, 200), "$name: the old keys stay");
}
unlink $file;
ok($t->wait_for(sub { $t->error_log =~ /its keys stay as they are/ }, 10), 'no file: said');
ok(everywhere($key, 200), 'the old keys stay');
my $logged = () = $t->error_log =~ /its keys stay/g;
sleep 0.5;
is((() = $t->error_log =~ /its keys stay/g), $logged, 'and once a worker');

open my $f, '>', $file or die $!;
print $f $good, map { sha256_hex("key $_") . " many-$_ t$_ # \n" =~ s/ # / /r } 1 .. 50000;
close $f;
ok(everywhere('key 50000', 200), '50,000 keys more, in place');
ok(everywhere($key, 200), 'beside the old ones');

# a key that expires while nobody writes the file
open $f, '>', "$file.tmp" or die $!;
print $f sha256_hex('soon'), ' soon acme expires=',
    POSIX::strftime('%Y-%m-%dT%H:%M:%SZ', gmtime time + 6), "\n";
close $f;
rename "$file.tmp", $file or die $!;
ok(everywhere('soon', 200), 'a key that expires soon');
ok(everywhere('soon', 401), 'has expired');

# --- what is written down --------------------------------------------------

my $log = LLM::_slurp("$t->{dir}/logs.keys");
like($log, qr{^/v1/completions 200 acme/acme-1 -$}m, '$llm_tenant and $llm_key_id');
like($log, qr{^/v1/completions 401 acme/old invalid_api_key$}m, 'also of an expired key');
like($log, qr{^/v1/completions 401 -/- missing_api_key$}m, 'none without');
like($log, qr{^/subject/completions 200 good/- -$}m, 'a name has no key');
for my $secret ($key, $other, $old, $new) {
    is(index($t->error_log . $t->engine_log . $log . $t->access_log, $secret), -1,
        'no log holds a key');
}

my @short = ('X-Subject' => 'CN=short');
is(ask('/subject', { prompt => 'a few words' }, @short)->{status}, 200, 'max_input_tokens: fits');
$r = ask('/subject', { prompt => 'word ' x 50 }, @short);
is("$r->{status} " . code($r), '400 context_length_exceeded', 'more is refused');
like(LLM->decode($r->{body})->{error}{message}, qr/has \d+ tokens; 20 are allowed/, 'with both numbers');
is(ask('/subject', { prompt => ['a few words'] x 20 }, @short)->{status}, 400, 'all prompts together');
ok($t->pool_is_full(3), 'nothing of it ran');

# --- what a configuration may not say ---------------------------------------

sub refused {
    my ($conf, $like, $name) = @_;
    my $text = $t->conf_text =~ s/^    llm_key_file.*$/$conf/mr;
    open my $f, '>', "$dir/bad.conf" or die $!;
    print $f $text;
    close $f;
    my $nginx = $ENV{LLM_NGINX} // '/usr/sbin/nginx';
    local $ENV{ASAN_OPTIONS} = 'detect_leaks=0:detect_odr_violation=0';
    like(qx($nginx -t -p $t->{dir} -e $dir/bad.log -c $dir/bad.conf 2>&1), $like, $name);
}

open $f, '>', "$dir/wrong" or die $!;
print $f "\nword\n";
close $f;
refused("llm_key_file $dir/wrong;", qr/wrong", line 2: /, 'a bad file at the start');
refused("llm_key_file $dir/absent;", qr/absent" failed \(2:/, 'no file at the start');
refused("llm_key_file $dir;", qr/is not a file/, 'a directory');
refused("llm_key_file $file check=x;", qr/invalid time/, 'check=x');
refused("llm_key_file $file; llm_key_file $file;", qr/is duplicate/, 'two files');
refused('llm_auth on;', qr/needs "llm_key_file" or "llm_tenant_key"/, 'auth without keys');
refused("llm_key_file $file; llm_auth sometimes;", qr/must be "on", "off" or/, 'auth sometimes');
refused("llm_key_file $file; llm_tenant acme { }", qr/duplicate llm tenant/, 'a tenant twice');
refused("llm_key_file $file; llm_tenant a/b { }", qr/invalid llm tenant name/, 'a bad name');
refused("llm_key_file $file; llm_tenant x { weight 0; }", qr/number from 1 to/, 'weight 0');
refused("llm_key_file $file; llm_tenant x { weight 1; weight 1; }", qr/duplicate/, 'twice');
refused("llm_key_file $file; llm_tenant x { queue 5 timeout=0; }", qr/invalid parameter/,
    'queue for no time');
refused("llm_key_file $file; llm_tenant x { limit 5; }", qr/unknown directive/, 'unknown');

$t->done;

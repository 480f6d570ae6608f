# Catches: a forged, expired or foreign token that reaches an engine, or is not
# refused in the API's own form; a good one that is not its tenant's in limits,
# usage log and variables; a token in a log; a key lookup that a JWT beside it
# breaks; keys that a reload does not take up; a bad key file that nginx starts
# with.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA qw(hmac_sha256 sha256_hex);
use LLM;
use MIME::Base64 'encode_base64url';
use Test::More;

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0777, $dir;

sub write_file {
    my ($name, $text, $mode) = @_;
    open my $f, '>', "$dir/$name" or die "$name: $!";
    print $f $text;
    close $f;
    chmod $mode // 0600, "$dir/$name" or die $!;
}

sub openssl { system("openssl $_[0] 2>/dev/null") == 0 or die "openssl $_[0]" }

# --- tokens ------------------------------------------------------------------

my %secret = (hs => 'x' x 40, default => join('', 'a' .. 'z', 0 .. 9));
my $wrong = 'y' x 40;

# r and s out of OpenSSL's DER, 32 bytes each
sub raw {
    my ($r, $s) = $_[0] =~ /^\x30.\x02(.)/s ? do {
        my $n = ord $1;
        (substr($_[0], 4, $n), substr($_[0], 6 + $n));
    } : die 'no DER';
    return join '', map { substr("\0" x 32 . $_, -32) } $r, $s;
}

# What "how" (a secret, or the name of a private key in $dir) signs.
sub token {
    my ($header, $claims, $how) = @_;
    my $text = join '.', map { encode_base64url(ref $_ ? LLM->encode($_) : $_) } $header, $claims;
    my $sig;
    if (-f "$dir/$how.pem") {
        write_file('text', $text);
        openssl("dgst -sha256 -sign $dir/$how.pem -out $dir/sig $dir/text");
        $sig = LLM::_slurp("$dir/sig");
        $sig = raw($sig) if $how =~ /^es/;
    } else {
        $sig = hmac_sha256($text, $how);
    }
    return "$text." . encode_base64url($sig);
}

sub claims { return { exp => time + 1000, tenant => 'acme', @_ } }
sub hs { token({ alg => 'HS256', kid => 'hs' }, claims(@_), $secret{hs}) }

openssl("genrsa -out $dir/rs.pem 2048");
openssl("rsa -in $dir/rs.pem -pubout -out $dir/rs.pub");
for my $name ('es', 'es_other') {
    openssl("ecparam -name prime256v1 -genkey -noout -out $dir/$name.pem");
    openssl("ec -in $dir/$name.pem -pubout -out $dir/$name.pub");
}
openssl("genrsa -out $dir/small.pem 1024");
openssl("rsa -in $dir/small.pem -pubout -out $dir/small.pub");
write_file('hs.key', "$secret{hs}\n");
write_file('default.key', $secret{default});
write_file('keys', sha256_hex('plain key') . " plain acme\n"
    . sha256_hex('a.b.c') . " dotted other\n", 0644);
write_file('es.current', LLM::_slurp("$dir/es.pub"));

my $jwt = <<"CONF";
    llm_jwt_key hs HS256 $dir/hs.key;
    llm_jwt_key default HS256 $dir/default.key leeway=0;
    llm_jwt_key rs RS256 $dir/rs.pub iss=https://issuer.test aud=llm;
    llm_jwt_key es ES256 $dir/es.current;
CONF
my $t = LLM->new(engine => [qw(--device null --model_name m)], workers => 2,
    location => 'llm_tenant_key $llm_jwt_claim_tenant; llm_request_id $http_x_id;',
    conf => "$jwt    llm_key_file $dir/keys;\n    llm_usage_log $dir/usage.log;\n" . <<'CONF',
    large_client_header_buffers 4 16k;
    llm_jwt_claim_set $org https://x.test/org Id;
    llm_tenant limited { requests 2 burst=2; }
    llm_tenant acme { max_tokens 5; }
    log_format jwt '$uri $status $llm_tenant/$llm_key_id $llm_jwt_claim_sub $llm_jwt_claim_n $llm_error';
    access_log logs.jwt jwt;
    limit_req_zone $llm_tenant zone=tenants:1m rate=1r/m;
CONF
    server => <<'SERVER');
        location /sub/ { llm_pass main; llm_tenant_key $llm_jwt_claim_sub; }
        location /org/ { llm_pass main; llm_tenant_key $org; }
        location /maybe/ { llm_pass main; llm_auth optional; llm_tenant_key $llm_jwt_claim_tenant; }
        location /header/ { llm_pass main; llm_key $http_x_token; llm_tenant_key $llm_jwt_claim_tenant; }
        location /any/ { llm_pass main; satisfy any; allow 127.0.0.1; deny all; llm_tenant_key $llm_jwt_claim_tenant; }
        location /none/ { llm_pass main; satisfy any; deny all; llm_tenant_key $llm_jwt_claim_tenant; }
        location /slow/ { llm_pass main; limit_req zone=tenants; limit_req_status 429; llm_tenant_key $llm_jwt_claim_tenant; }
        location /round/ { llm_pass main; llm_key $llm_jwt_claim_sub; llm_tenant_key $llm_jwt_claim_sub; }
        location = /claim { return 200 "[$llm_jwt_claim_sub|$llm_jwt_claim_n|$org]"; }
        location = /moved { llm_key $http_x_token; if ($llm_jwt_claim_sub) { set $x 1; } error_page 418 = /claim; return 418; }
SERVER

my %body = (model => 'm', prompt => 'x', max_tokens => 3);
my $sum = '';    # every token that was sent

sub ask {
    my ($path, $more, %h) = @_;
    return $t->post("$path/completions", { %body, %{ $more // {} } }, %h);
}

sub bearer { $sum .= "$_[0]\n"; (Authorization => "Bearer $_[0]") }
sub error { my $r = shift; LLM->decode($r->{body})->{error} }

# --- who may in --------------------------------------------------------------

my %good = (
    HS256 => hs(),
    'no kid' => token({ alg => 'HS256' }, claims(), $secret{default}),
    RS256 => token({ alg => 'RS256', kid => 'rs' },
        claims(iss => 'https://issuer.test', aud => ['x', 'llm']), 'rs'),
    ES256 => token({ alg => 'ES256', kid => 'es', typ => 'JWT' }, claims(), 'es'),
    'just expired' => hs(exp => time - 30),
    'good soon' => hs(nbf => time + 30),
);
for my $name (sort keys %good) {
    my $r = ask('/v1', { max_tokens => 50 }, bearer($good{$name}));
    is($r->{status}, 200, "$name opens") or diag($r->{body});
    is(LLM->decode($r->{body})->{usage}{completion_tokens}, 5, "$name: as its tenant");
}
is(ask('/v1', {}, Authorization => 'bearer   ' . hs())->{status}, 200, 'whatever the case');
is(ask('/v1', {}, 'X-Api-Key' => hs())->{status}, 200, 'in x-api-key too');
is($t->get('/v1/models', bearer(hs()))->{status}, 200, 'the list of models');

my $parts = sub { split /\./, $_[0] };
my ($h, $c, $s) = $parts->(hs());
my ($oh, $oc) = $parts->(hs(tenant => 'other'));
my $rs_claims = claims(iss => 'https://issuer.test', aud => 'llm');
my $public = LLM::_slurp("$dir/rs.pub");
my $bad = 'The token is not valid.';
my $none = 'The API key is not valid.';
my $reason = qr/JWT is refused: /;
for (
    ['alg none', encode_base64url('{"alg":"none","kid":"hs"}') . ".$c.", $bad, 'alg'],
    ['no signature', "$h.$c.", $bad, 'signature'],
    ['another text', "$h.$oc.$s", $bad, 'signature'],
    ['another secret', token({ alg => 'HS256', kid => 'hs' }, claims(), $wrong), $bad, 'signature'],
    ['another key', token({ alg => 'ES256', kid => 'es' }, claims(), 'es_other'), $bad, 'signature'],
    ['the public key as secret', token({ alg => 'HS256', kid => 'rs' }, $rs_claims, $public),
        $bad, 'alg'],
    ['that as RS256', token({ alg => 'RS256', kid => 'rs' }, $rs_claims, $public),
        $bad, 'signature'],
    ['a key of its own', token({ alg => 'ES256', kid => 'mine', jwk => {} }, claims(), 'es_other'),
        $bad, 'kid'],
    ['expired', hs(exp => time - 100), 'The token has expired.', 'expired'],
    ['no leeway', token({ alg => 'HS256' }, claims(exp => time - 1), $secret{default}),
        'The token has expired.', 'expired'],
    ['early', hs(nbf => time + 100), 'The token is not valid yet.', 'yet'],
    ['expired and forged', token({ alg => 'HS256', kid => 'hs' }, claims(exp => 1), $wrong),
        $bad, 'signature'],
    ['exp is text', hs(exp => '9999999999x'), $bad, 'exp'],
    ['no exp', token({ alg => 'HS256', kid => 'hs' }, { tenant => 'acme' }, $secret{hs}),
        $bad, 'exp'],
    ['two tenants', token({ alg => 'HS256', kid => 'hs' },
        '{"exp":9999999999,"tenant":"other","tenant":"acme"}', $secret{hs}), $bad, 'twice'],
    ['no iss', token({ alg => 'RS256', kid => 'rs' }, claims(aud => 'llm'), 'rs'), $bad, 'iss'],
    ['another aud', token({ alg => 'RS256', kid => 'rs' },
        claims(iss => 'https://issuer.test', aud => 'mail'), 'rs'), $bad, 'aud'],
    ['an aud, unasked', hs(aud => 'mail'), $bad, 'aud'],
    ['long', hs(fill => 'x' x 7000), $bad, 'longer'],
    ['no tenant', hs(tenant => undef), 'The token names no tenant.'],
    ['tenant of another type', hs(tenant => [1]), 'The token names no tenant.'],
    ['a line break', hs(tenant => "a\nb"), 'The token names no tenant.'],
    ['no tenant name', hs(tenant => 'a b'), 'The token names no tenant.'],
    ['padded', hs() . '=', $none], ['four parts', hs() . '.x', $none],
    ['quoted', '"' . hs() . '"', $none]) {
    my ($name, $token, $told, $logged) = @$_;
    my $before = length $t->error_log;
    my $r = ask('/v1', {}, bearer($token));
    is($r->{status}, 401, "$name: 401");
    is_deeply(error($r), { message => $told, type => 'invalid_request_error', param => undef,
        code => 'invalid_api_key' }, "$name: as the API says it");
    is($r->{headers}{'www-authenticate'}, 'Bearer', "$name: the scheme");
    my @lines = substr($t->error_log, $before) =~ /\[info\] .*?$reason(.*?), client/g;
    is(scalar @lines, $logged ? 1 : 0, "$name: looked at once");
    like($lines[0], qr/$logged/, "$name: the log says why") if $logged;
}
$t->allow(qr/is no tenant's name/);

# --- beside keys and other modules -------------------------------------------

is(ask('/v1', {}, bearer('plain key'))->{status}, 200, 'a key beside it');
is(ask('/v1', {}, bearer('a.b.c'))->{status}, 200, 'one that looks like a token');
my $r = ask('/v1', {}, bearer('wrong'));
is(error($r)->{message}, $none, 'a wrong key is called a key');
is(error(ask('/v1'))->{code}, 'missing_api_key', 'nothing at all');
is(ask('/maybe')->{status}, 200, 'optional: none');
is(ask('/maybe', {}, bearer(hs()))->{status}, 200, 'optional: a good one');
is(ask('/maybe', {}, bearer(hs(exp => 1)))->{status}, 401, 'optional: an expired one');
is(ask('/header', {}, 'X-Token' => hs())->{status}, 200, 'llm_key says where it is');
is(ask('/header', {}, bearer(hs()))->{status}, 401, 'and then it is nowhere else');
is(ask('/any')->{status}, 200, 'satisfy any: by address');
is(ask('/none', {}, bearer(hs()))->{status}, 200, 'satisfy any: by token');
like(ask('/none', {}, bearer(hs(exp => 1)))->{status}, qr/^40[13]$/, 'satisfy any: neither');
is(ask('/slow', {}, bearer(hs(tenant => 'one')))->{status}, 200, 'limit_req by $llm_tenant: first');
is(ask('/slow', {}, bearer(hs(tenant => 'one', x => 1)))->{status}, 429, 'the same tenant');
is(ask('/slow', {}, bearer(hs(tenant => 'two')))->{status}, 200, 'another one');
is(ask('/round', {}, bearer(hs(sub => 'acme')))->{status}, 401, 'llm_key by a claim: ends');
like($t->error_log, qr/llm_key depends on a claim/, 'and is said');
is(ask('/v1', {}, bearer(hs(tenant => 'limited')))->{status}, 200, 'a limit: first');
is(ask('/v1', {}, bearer(hs(tenant => 'limited', x => 1)))->{status}, 200, 'second');
is(ask('/v1', {}, bearer(hs(tenant => 'limited', x => 2)))->{status}, 429, 'third');

# --- claims as variables -----------------------------------------------------

is(ask('/sub', {}, bearer(hs(sub => 'user-1', n => -7)))->{status}, 200, 'sub is the tenant');
is(ask('/org', {}, bearer(hs('https://x.test/org' => { Id => 42 })))->{status}, 200,
    'a claim by a path');
is(ask('/org', {}, bearer(hs('https://x.test/org' => { id => 42 })))->{status}, 401,
    'and by no other');
my %all = (sub => 'a', n => 9007199254740993, 'https://x.test/org' => { Id => 'o' });
is($t->get('/claim', bearer(hs(%all)))->{body}, '[a|9007199254740993|o]', 'in any location');
is($t->get('/claim', bearer(hs(%all, exp => 1)))->{body}, '[||]', 'empty if it has expired');
is($t->get('/claim', bearer(hs(sub => "a\r\nX: y", n => 1.5)))->{body}, '[||]',
    'no line breaks, no fractions');
is($t->get('/claim')->{body}, '[||]', 'without one');
is($t->get('/moved', bearer(hs(sub => 'bearer')), 'X-Token' => hs(sub => 'token'))->{body},
    '[bearer||]', 'each location has its own token');

my $log = LLM::_slurp("$t->{dir}/logs.jwt");
like($log, qr{^/v1/completions 200 acme/- - - -$}m, 'the tenant in a log');
like($log, qr{^/v1/completions 200 acme/plain - - -$}m, 'beside one by key');
like($log, qr{^/v1/completions 401 -/- - - invalid_api_key$}m, 'none of a bad one');
like($log, qr{^/sub/completions 200 user-1/- user-1 -7 -$}m, 'claims in a log');

is(ask('/v1', {}, bearer(hs(tenant => 'logged')), 'X-Id' => 'usage-1')->{status}, 200, 'used');
my ($line) = $t->wait_for(sub { LLM::_slurp("$dir/usage.log") =~ /^(.*"usage-1".*)$/m && $1 });
$line = LLM->decode($line);
is("$line->{tenant}/$line->{key}", 'logged/', 'its usage is its tenant\'s');
is($line->{completion_tokens}, 3, 'to the token');

# --- a reload takes up new keys ----------------------------------------------

my $old = token({ alg => 'ES256', kid => 'es' }, claims(), 'es');
my $new = token({ alg => 'ES256', kid => 'es' }, claims(), 'es_other');
is(ask('/v1', {}, bearer($new))->{status}, 401, 'a key to come');
write_file('es.current', LLM::_slurp("$dir/es_other.pub"));
is(ask('/v1', {}, bearer($old))->{status}, 200, 'the old one until the reload');
ok($t->reload, 'reload');
$t->wait_for(sub { (my @pids = $t->pids) == 2 });
$t->wait_ready;
is(ask('/v1', {}, bearer($new))->{status}, 200, 'the new one');
is(ask('/v1', {}, bearer($old))->{status}, 401, 'the old one no more');
write_file('es.current', 'nonsense');
$t->signal(nginx => 'HUP');
ok($t->wait_for(sub { $t->error_log =~ /es\.current": it does not hold one public key/ }, 10),
    'a bad file: said');
$t->allow(qr/es\.current": it does not hold one public key/);
is(ask('/v1', {}, bearer($new))->{status}, 200, 'and all stays as it was');

# --- what is written down ----------------------------------------------------

my $logs = $t->error_log . $t->engine_log . $t->access_log . LLM::_slurp("$t->{dir}/logs.jwt")
    . LLM::_slurp("$dir/usage.log");
my %seen;
for my $part (grep { length > 20 && !$seen{$_}++ } split /[.\n]/, $sum) {
    next if index($logs, $part) < 0;
    fail("a log holds $part");
}
cmp_ok(keys %seen, '>', 60, 'parts of tokens: in no log');
is(index($logs, $_), -1, 'no secret is in a log') for values %secret;

# --- what a configuration may not say ----------------------------------------

sub refused {
    my ($conf, $like, $name) = @_;
    my $text = $t->conf_text =~ s/^    llm_jwt_key es .*$/    llm_jwt_key es ES256 $dir\/es.pub;\n$conf/mr;
    $text = $t->conf_text =~ s/^    llm_jwt_key .*\n//mgr if !$conf;
    open my $f, '>', "$dir/bad.conf" or die $!;
    print $f $text;
    close $f;
    my $nginx = $ENV{LLM_NGINX} // '/usr/sbin/nginx';
    local $ENV{ASAN_OPTIONS} = 'detect_leaks=0:detect_odr_violation=0';
    like(qx($nginx -t -p $t->{dir} -e $dir/bad.log -c $dir/bad.conf 2>&1), $like, $name);
}

write_file('short.key', "too short\n");
write_file('big.key', 'x' x 70000);
my $in = qr/ in \S+bad\.conf:\d+$/m;
refused(' ', qr/test is successful/, 'it is the rest that is wrong');
refused("llm_jwt_key a ES256 $dir/absent;", qr/open\(\) "$dir\/absent" failed \(2: .*\)$in/,
    'no file');
refused("llm_jwt_key a ES256 $dir;", qr/"$dir" is not a file$in/, 'a directory');
refused("llm_jwt_key a ES256 $dir/keys;",
    qr/llm_jwt_key "a", file "$dir\/keys": it does not hold one public key in PEM$in/, 'no PEM');
refused("llm_jwt_key a ES256 $dir/rs.pub;", qr/ES256 needs an EC key of the curve P-256$in/,
    'RSA for ES256');
refused("llm_jwt_key a RS256 $dir/es.pub;", qr/RS256 needs an RSA key$in/, 'EC for RS256');
refused("llm_jwt_key a RS256 $dir/small.pub;", qr/has 1024 bits/, 'a short RSA key');
refused("llm_jwt_key a RS256 $dir/rs.pem;", qr/it holds a private key/, 'a private key');
refused("llm_jwt_key a HS256 $dir/rs.pub;", qr/it holds PEM, not a secret/, 'PEM as a secret');
refused("llm_jwt_key a HS256 $dir/short.key;", qr/has 9 bytes, fewer than 32/, 'a short secret');
refused("llm_jwt_key a HS256 $dir/big.key;", qr/longer than 65536 bytes/, 'a large file');
refused("llm_jwt_key a HS512 $dir/hs.key;", qr/must be HS256, RS256 or ES256/, 'HS512');
refused("llm_jwt_key a none $dir/hs.key;", qr/must be HS256, RS256 or ES256/, 'none');
refused("llm_jwt_key hs HS256 $dir/hs.key;", qr/a key of this name already/, 'a name twice');
refused("llm_jwt_key '' HS256 $dir/hs.key;", qr/its name is empty/, 'no name');
refused("llm_jwt_key a HS256;", qr/invalid number of arguments/, 'no file named');
refused("llm_jwt_key a HS256 $dir/hs.key $_;", qr/invalid parameter/, $_)
    for 'x=1', 'iss=', 'iss=a iss=b', 'aud=a iss=b aud=c', 'leeway=1 leeway=1';
refused("llm_jwt_key a HS256 $dir/hs.key leeway=$_;", qr/invalid time/, "leeway=$_")
    for '-1', 'x', '2d';
refused('llm_jwt_claim_set org sub;', qr/invalid variable name/, 'no variable');
refused('llm_jwt_claim_set $x;', qr/invalid number of arguments/, 'no claim');
refused('llm_jwt_claim_set $org sub;', qr/the duplicate "org" variable/, 'a variable twice');
refused('', qr/"llm_jwt_claim_set" needs "llm_jwt_key"/, 'claims without a key');
$t->{conf} =~ s/^    llm_jwt_claim_set.*\n//m;
$t->{server} =~ s/\$org/\$llm_jwt_claim_org/g;
refused('', qr/"\$llm_jwt_claim_\w+" needs "llm_jwt_key"/, 'a variable without a key');

$t->done;

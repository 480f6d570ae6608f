# Catches: a browser that may not call the API although llm_cors says so, or
# may although it does not: preflights that need a key, errors without the
# origin, names that come back as anything but names; another origin let in.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use Test::More;

my $t = LLM->new(engine => [qw(--device null --model_name m)], workers => 1,
    conf => <<'CONF', server => <<'SERVER');
    llm_cors https://app.example.com http://localhost:3000;
    limit_req_zone $http_x_limit zone=limit:1m rate=1r/m;
CONF
        location /keyed/ { llm_pass main; llm_tenant_key $http_x_tenant; }
        location /any/ { llm_pass main; llm_cors *; }
        location /off/ { llm_pass main; llm_cors off; }
        location /limited/ { llm_pass main; limit_req zone=limit; limit_req_status 429; }
        location /file/ { return 200 ok; }
SERVER

my %body = (model => 'm', prompt => 'x', max_tokens => 3);
my $app = 'https://app.example.com';

sub preflight {
    my ($path, $origin, %h) = @_;
    return $t->request('OPTIONS', "$path/completions", undef,
        Origin => $origin, 'Access-Control-Request-Method' => 'POST', %h);
}

sub allowed { $_[0]{headers}{'access-control-allow-origin'} // '-' }

# --- preflight -------------------------------------------------------------

my $r = preflight('/keyed', $app,
    'Access-Control-Request-Headers' => 'authorization, content-type, x-stainless-os');
is($r->{status}, 204, 'a preflight needs no key');
is(allowed($r), $app, 'its origin may ask');
is($r->{headers}{'access-control-allow-methods'}, 'GET, POST, OPTIONS', 'methods');
is($r->{headers}{'access-control-allow-headers'},
    'authorization, content-type, x-stainless-os', 'the headers it asked for');
cmp_ok($r->{headers}{'access-control-max-age'}, '>', 60, 'for some time');
is($r->{headers}{vary}, 'Origin', 'Vary');
is($r->{body}, '', 'no body');

is(allowed(preflight('/keyed', 'http://localhost:3000')), 'http://localhost:3000',
    'another origin of the list');
for my $bad ('https://app.example.com.evil.example', 'https://app.example.co',
    'http://app.example.com', 'null', '*', '', 'HTTPS://APP.EXAMPLE.COM')
{
    $r = preflight('/keyed', $bad);
    is($r->{status}, 401, "not '$bad'");
    is(allowed($r), '-', 'which is not named');
}
$r = preflight('/keyed', $app, 'Access-Control-Request-Headers' => "x\x01y, <script>");
is($r->{headers}{'access-control-allow-headers'}, 'authorization, content-type, x-api-key',
    'what is no list of names does not come back');
$r = preflight('/keyed', $app, 'Access-Control-Request-Headers' => 'x' x 3000);
is($r->{headers}{'access-control-allow-headers'}, 'authorization, content-type, x-api-key',
    'nor does what is too long');
is($t->request('OPTIONS', '/keyed/completions', undef, Origin => $app)->{status}, 401,
    'OPTIONS of another kind is a request like any');
is(preflight('/off', $app)->{status}, 405, 'off');
is(allowed(preflight('/any', 'https://anywhere.example')), '*', 'any origin');

# --- answers ---------------------------------------------------------------

$r = $t->post('/keyed/completions', \%body, Origin => $app, 'X-Tenant' => 'acme');
is($r->{status}, 200, 'an answer');
is(allowed($r), $app, 'can be read');
like($r->{headers}{'access-control-expose-headers'}, qr/x-request-id, retry-after,/,
    'with its headers');
ok(!exists $r->{headers}{'access-control-allow-credentials'}, 'no cookies');
$r = $t->post('/keyed/completions', \%body, 'X-Tenant' => 'acme');
is(allowed($r), '-', 'without an origin nothing is said');
is($r->{headers}{vary}, 'Origin', 'but that it would matter');
$r = $t->post('/keyed/completions', \%body, Origin => $app);
is("$r->{status} " . allowed($r), "401 $app", 'a missing key can be read');
$r = $t->post('/keyed/completions', '{', Origin => $app, 'X-Tenant' => 'acme');
is("$r->{status} " . allowed($r), "400 $app", 'and a bad body');
$r = $t->get('/keyed/models', Origin => $app, 'X-Tenant' => 'acme');
is("$r->{status} " . allowed($r), "200 $app", 'and models');
$t->post('/limited/completions', \%body, 'X-Limit' => 1);
$r = $t->post('/limited/completions', \%body, 'X-Limit' => 1, Origin => $app);
is("$r->{status} " . allowed($r), "429 $app", 'and what another module refuses');
my $s = $t->connect;
print $s $t->request_text('POST', '/any/completions',
    { %body, stream => JSON::PP::true() }, Origin => $app);
my $stream = LLM::Stream->new($s);
$stream->events;
is(allowed($stream), '*', 'and a stream');
is(allowed($t->get('/file/', Origin => $app)), $app, 'the directive is the location\'s');

$t->done;

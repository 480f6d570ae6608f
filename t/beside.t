# Catches: a request that becomes another's, or nobody's, or is counted twice,
# because nginx sent it through more than one location or module: auth_request,
# satisfy any, rewrite, error_page, a location within a location; a tenant that
# takes all the room there is; a live worker that is taken for a dead one.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use Test::More;
use Time::HiRes 'sleep';

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0777, $dir;
open my $f, '>', "$dir/keys" or die $!;
print $f sha256_hex("$_ key"), " id-$_ $_\n" for qw(acme other few blocked);
print $f sha256_hex('old key'), " id-old acme expires=2020-01-01\n";
close $f;

my $t = LLM->new(engine => [qw(--device null --model_name m --step_min 5ms --context 4096)],
    workers => 2, main => 'worker_rlimit_nofile 60;', conf => <<"CONF", server => <<'SERVER');
    llm_key_file $dir/keys;
    llm_zone llm:256k;
    llm_usage_log $dir/usage.log;
    llm_request_id \$http_x_id;
    llm_tenant default { max_tokens 50; priority 3; }
    llm_tenant few { requests 60 burst=2; max_tokens 2000; }
    llm_tenant acme { max_tokens 2000; }
    llm_tenant other { max_tokens 2000; }
    map \$http_x_subject \$subject { default ""; CN=acme acme; }
CONF
        location = /ask { return 204; }
        location /asked/ {
            auth_request /ask;
            auth_request_set $who $http_x_who; # not known before it was asked
            llm_tenant_key $who;
            llm_pass main;
        }
        location /any/ { satisfy any; allow 127.0.0.1; deny all; llm_pass main; }
        location /first/ { set $x $llm_tenant; rewrite ^/first/(.*) /second/$1 last; llm_pass main; }
        location /second/ { llm_tenant_key $subject; llm_pass main; }
        location /denied/ { deny all; error_page 403 = @page; llm_pass main; }
        location @page { llm_pass main; }
        location /outer/ {
            llm_auth off;
            llm_pass main;
            location /outer/inner/ { llm_auth on; llm_pass main; }
        }
        location /admin/ {
            llm_admin;
            limit_except GET PUT DELETE POST { deny all; }
        }
SERVER
$t->allow(qr/has no room for a request of/, qr/Too many open files/, qr/accept4\(\) failed/);

my %body = (model => 'm', prompt => 'x', max_tokens => 3);
sub ask {
    my ($path, $who, %h) = @_;
    return $t->post("$path/completions", \%body,
        $who ? (Authorization => "Bearer $who key") : (), %h);
}
sub lines {
    my ($id) = @_;
    return grep { $_->{id} eq $id } map { LLM->decode($_) } split /\n/, LLM::_slurp("$dir/usage.log");
}
sub line {
    my ($id) = @_;
    $t->wait_for(sub { lines($id) }, 5);
    return join ' ', map { "$_->{tenant} $_->{status}" } lines($id);
}

# --- auth_request: asked before us, whatever the order in the file --------------

is(ask('/asked', undef, 'X-Who' => 'acme', 'X-Id' => 'asked')->{status}, 200, 'auth_request names it');
is(line('asked'), 'acme 200', 'and it is counted as that');
is(ask('/asked', 'other', 'X-Who' => 'acme', 'X-Id' => 'both')->{status}, 200, 'with a key beside it');
is(line('both'), 'acme 200', 'the trusted name counts');
is(ask('/asked', undef, 'X-Id' => 'none')->{status}, 401, 'no name');

# --- satisfy any -----------------------------------------------------------------

is(ask('/any', undef, 'X-Id' => 'address')->{status}, 200, 'by address, without a key');
is(join(' ', map { ask('/any', 'few', 'X-Id' => "any$_")->{status} } 1 .. 3), '200 200 429',
    'with one its limits count');
is(line('any1'), 'few 200', 'and it is written down');
my $r = ask('/any', 'old', 'X-Id' => 'old');
is($r->{status}, 200, 'an expired key is as none');
is(ask('/any', 'other', 'X-Id' => 'after')->{status}, 200, 'and another');
is(line('after'), 'other 200', 'whose line is there');
is(scalar(() = lines('old')), 0, 'for the expired one nobody is charged');
$r = $t->post('/any/completions', { %body, max_tokens => 100 });
is(LLM->decode($r->{body})->{usage}{completion_tokens}, 50, 'nobody has what default says');

# --- through several locations ---------------------------------------------------

is(ask('/first', 'other', 'X-Subject' => 'CN=acme', 'X-Id' => 'rewritten')->{status}, 200, 'rewritten');
is(line('rewritten'), 'acme 200', 'it is whose the last location says');
$r = ask('/denied', 'acme', 'X-Id' => 'denied');
is($r->{status}, 200, 'an error page of ours');
is(line('denied'), 'acme 200', 'is counted once');
is(ask('/outer')->{status}, 200, 'no key for the outer location');
is(ask('/outer/inner')->{status}, 401, 'one for the inner');
is($t->request('PUT', '/admin/tenants/blocked/block')->{status}, 200, 'limit_except beside llm_admin');
is(ask('/v1', undef, Authorization => 'Bearer ')->{status}, 401, 'an empty bearer');
like(ask('/v1', undef, Authorization => 'Bearer ')->{body}, qr/missing_api_key/, 'is none');

# --- who takes all the room ---------------------------------------------------------

# bodies that never come, of one who is blocked and of one who is not
my (@idle, %code);
for my $i (1 .. 45) {
    my $who = $i % 2 ? 'blocked' : 'other';
    my $s = $t->connect;
    print $s "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $who key\r\n"
        . "X-Id: idle$i\r\nContent-Length: 2000\r\n\r\n{";
    push @idle, $s;
}
is(line('idle1'), 'blocked 403', 'a blocked one is done with at once');
is(scalar(grep { ask('/v1', 'acme')->{status} != 200 } 1 .. 5), 0, 'others are served');

# no descriptor is left to look at another worker with: it is alive nevertheless
my @streams;
for my $i (1 .. 4) {
    my $s = $t->connect or next;
    print $s $t->request_text('POST', '/v1/completions', { %body, max_tokens => 500,
        stream => JSON::PP::true() }, Authorization => 'Bearer acme key', 'X-Id' => "live$i");
    push @streams, LLM::Stream->new($s);
}
push @idle, grep { $_ } map { $t->connect } 1 .. 80;
sleep 2.5;
close $_ for @idle;
$_->events(30) for @streams;
$t->wait_for(sub { 4 == grep { lines("live$_") } 1 .. 4 }, 10);
is(join(' ', map { scalar lines("live$_") } 1 .. 4), '1 1 1 1', 'and each is written down once');
like($t->error_log, qr/Too many open files/, 'there was none left indeed');
unlike(LLM::_slurp("$dir/usage.log"), qr/"recovered":true/, 'none by another');

$t->done;

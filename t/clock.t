# Catches: a wall clock that is set forward or back and takes streams, workers
# or engines with it, locks a tenant out until the old time comes again, keeps
# a key alive that has expired, or writes nonsense into the usage log.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use POSIX 'strftime';
use Test::More;
use Time::HiRes 'sleep';

my ($lib) = glob '/usr/lib/*/faketime/libfaketime.so.1';
plan skip_all => 'no libfaketime' if !$lib;
plan skip_all => 'not under a sanitizer' if $ENV{LLM_NGINX};

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0777, $dir;
my $day = 86400;
open my $f, '>', "$dir/keys" or die $!;
print $f sha256_hex('key'), ' k keyed', strftime(' expires=%Y-%m-%d', gmtime(time + 2 * $day)), "\n";
close $f;

sub jump { # seconds from the real time
    open my $f, '>', "$dir/clock.new" or die $!;
    printf $f "%+d\n", $_[0];
    close $f;
    rename "$dir/clock.new", "$dir/clock" or die $!;
    sleep 0.1;
}
jump(0);

my $t = LLM->new(no_nginx => 1, workers => 2, engine => [qw(--device null --model_name m
    --step_min 10ms --context 4096)], location => 'llm_tenant_key $http_x_tenant;',
    main => 'env LD_PRELOAD; env FAKETIME_TIMESTAMP_FILE; env FAKETIME_NO_CACHE;'
        . ' env FAKETIME_DONT_FAKE_MONOTONIC;', conf => <<"CONF");
    llm_key_file $dir/keys;
    llm_usage_log $dir/usage.log;
    llm_tenant often { requests 60 burst=5; }
    llm_tenant daily { budget 100 per=day; max_tokens 50; }
CONF
{
    local $ENV{FAKETIME_TIMESTAMP_FILE} = "$dir/clock";
    local $ENV{FAKETIME_NO_CACHE} = 1;
    local $ENV{FAKETIME_DONT_FAKE_MONOTONIC} = 1;
    local $ENV{LD_PRELOAD} = $lib;
    $t->start_nginx;
}
$t->wait_ready;

sub date { $t->get('/health')->{headers}{date} =~ /(\d+ \w+ \d+)/ ? $1 : '' }
sub ask {
    my ($tenant, $tokens, @key) = @_;
    return $t->post('/v1/completions', { model => 'm', prompt => 'x', max_tokens => $tokens },
        @key ? @key : ('X-Tenant' => $tenant))->{status};
}
my @key = (Authorization => 'Bearer key');
my @s;
sub begin {
    my $c = $t->connect;
    print $c $t->request_text('POST', '/v1/completions', { model => 'm', prompt => 'x',
        max_tokens => 400, stream => JSON::PP::true() }, 'X-Tenant' => 'stream');
    push @s, LLM::Stream->new($c);
    $s[-1]->next_event(10);
}
begin() for 1 .. 4;

is(ask('often', 1), 200, 'one') for 1 .. 5;
is(ask('often', 1), 429, 'the minute is used up');
is(ask('daily', 50), 200, 'a budget');
is(ask('daily', 50), 429, 'the day is used up');
is(ask('', 1, @key), 200, 'a key');
my $date = date();

jump(3 * $day);
isnt(date(), $date, 'three days later');
begin();
is(ask('often', 1), 200, 'the minute is over') for 1 .. 5;
is(ask('daily', 50), 200, 'so is the day');
is(ask('', 1, @key), 401, 'the key has expired');

jump(0);
is(date(), $date, 'back again');
begin();
is(ask('', 1, @key), 200, 'and the key has not');
is(ask('often', 1), 429, 'nothing is left');
sleep 1.2;
is(ask('often', 1), 200, 'but it comes back in a second, not in three days');

jump(-3600);
begin();
is(ask('other', 3), 200, 'an hour before');

$_->events(20) for @s;
is(scalar(grep { $_->{done_seen} } @s), 7, 'no stream has noticed');
unlike($t->error_log, qr/no heartbeat|timed out/, 'nor has anyone else');
my @lines = map { LLM->decode($_) } split /\n/, LLM::_slurp("$dir/usage.log");
is(scalar(grep { $_->{ms} > 4 * $day * 1000 || $_->{ms} < 0 } @lines), 0,
    scalar(@lines) . ' lines with times that can be');

$t->done;

#!/usr/bin/env perl
# Two machines, as two network namespaces with a wire between them: a model in
# both gives the demo's answers, and when the wire is cut both ranks notice
# within seconds, whether a stream runs or nothing does.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $net = "llmt$$";
my $up = $> == 0 && system("ip netns add ${net}a 2>/dev/null && ip netns add ${net}b"
    . " && ip link add llmt0 netns ${net}a type veth peer name llmt1 netns ${net}b") == 0;
END { local $?; system("ip netns del ${net}$_ 2>/dev/null") for qw(a b) }
plan skip_all => 'no network namespaces here' if !$up;

sub wire {
    my ($how) = @_;
    system("ip -n ${net}a link set llmt0 $how && ip -n ${net}b link set llmt1 $how") == 0 or die $!;
}

system("ip -n ${net}$_->[0] addr add 10.99.0.$_->[1]/24 dev llmt$_->[2]") for ['a', 1, 0], ['b', 2, 1];
wire('up');

$ENV{LLM_RANKS_SECRET} = '0123456789abcdef' x 2;
my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
my @rank = ('--model', LLM->demo, qw(--kv_type f32 --threads 1 --tensor_parallel 2
    --tensor_parallel_address 10.99.0.1:7700 --listen));
my $t = LLM->new(workers => 1);
push @rank, $t->{socket}, $> ? () : qw(--socket_group www-data);

sub start {
    unlink map { "$t->{dir}/$_.log" } qw(engine follower);
    $t->_spawn(follower => "$t->{dir}/follower.log", qw(ip netns exec), "${net}b",
        LLM->build . '/llm-engine', @rank, qw(--rank 1));
    $t->_spawn(engine => "$t->{dir}/engine.log", qw(ip netns exec), "${net}a",
        LLM->build . '/llm-engine', @rank, qw(--rank 0));
    $t->wait_for(sub { -S $t->{socket} && $t->get('/ready')->{status} == 200 }, 30)
        or BAIL_OUT('no engine: ' . $t->engine_log);
    my ($chat) = @{ $t->golden->{chats} };
    my $c = $t->decode($t->post('/v1/chat/completions', { model => LLM->demo_name,
        temperature => 0, max_tokens => 200, messages => $chat->{messages} })->{body});
    is($c->{choices}[0]{message}{content}, $chat->{reply}, "$chat->{messages}[-1]{content}");
}

sub cut {
    my ($what) = @_;
    my $start = time;
    wire('down');
    for my $name (qw(engine follower)) {
        is($t->reap($name, 20), 256, "$what: the $name exits with 1");
        like(LLM::_slurp("$t->{dir}/$name.log"), qr/rank \d has gone/, 'and says why');
    }
    my $took = time - $start;
    cmp_ok($took, '<', 10, sprintf '%s: noticed after %.1f s', $what, $took);
    unlink $t->{socket};
    wire('up');
}

start();
cut('nothing runs');
start();
my $s = $t->stream('/v1/completions', { model => LLM->demo_name, prompt => 'nginx',
    max_tokens => 900, ignore_eos => JSON::PP::true });
$s->next_event(10);
cut('a stream runs');
$s->events(10);
like($s->{last} // '', qr/^\{"error"/, 'which ends with an error');
$s->close;
start();
$t->stop($_ => 'TERM') for qw(engine follower);

$t->done;

#!/usr/bin/env perl
# The model that ships with the tree: it says what it was taught, token for
# token as the reference computed it from the same weights (the golden file
# holds prompts, ids and replies); it stops by itself; a chat of many turns
# stays within its context, and one that is too long is refused.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $name = LLM->demo_name;

# a set that leaves activations as they are (that of AVX-512's BF16 does not)
my $cpu = do { open my $f, '<', '/proc/cpuinfo' or die; local $/; <$f> };
my $t = LLM->new(engine => ['--model', LLM->demo, '--kv_type', 'f32',
    '--cpu_isa', $cpu =~ /\bavx2\b/ ? 'avx2' : 'ref']);

my $golden = $t->golden;
my %greedy = (model => $name, temperature => 0, max_tokens => 200);

sub slurp { open my $f, '<:raw', $_[0] or die "$_[0]: $!"; local $/; <$f> }

cmp_ok(-s LLM->demo, '<=', 8 << 20, 'at most 8 MiB');
my $from = LLM->root . '/tests/demo';
cmp_ok(index(slurp(LLM->demo), slurp("$from/chat_template.jinja")), '>', 0,
    'its chat template is the one it was trained with');

# its exam asks nothing that a lesson says
my (%seen, %ids, @bad);
for my $entry (split /^(?==)/m, slurp("$from/faq.txt")) {
    my %of;
    push @{ $of{$1} }, $2 while $entry =~ /^([=?!>@]) (\S.*\S)$/mg;
    my ($id, $answer) = ($of{'='}[0], $of{'>'}[0] // '');
    push @bad, "$id: twice" if $ids{$id}++;
    push @bad, "$id: wordings" if @{ $of{'?'} // [] } < 8 || @{ $of{'!'} // [] } != 2;
    push @bad, "$id: answers" if @{ $of{'>'} // [] } != 1 || !@{ $of{'@'} // [] };
    push @bad, map { "$id: no '$_' in the answer" } grep { index($answer, $_) < 0 } @{ $of{'@'} };
    push @bad, map { "$id: '$_' is there already" } grep { $seen{ lc s/\W+/ /gr }++ }
        @{ $of{'?'} }, @{ $of{'!'} };
}
cmp_ok(keys %ids, '>=', 60, keys(%ids) . ' questions about the server');
is("@bad", '', 'and each as it should be');

# conversations: the template's tokens, the reply, its end
for my $chat (@{ $golden->{chats} }) {
    my $what = $chat->{messages}[-1]{content};
    my $c = $t->decode($t->post('/v1/chat/completions',
        { %greedy, messages => $chat->{messages} })->{body});
    is($c->{usage}{prompt_tokens}, scalar @{ $chat->{prompt_ids} }, "$what: prompt tokens");
    SKIP: {
        skip "$what: two tokens were as good ($chat->{margin})", 1 if $chat->{margin} < 0.001;
        is($c->{choices}[0]{message}{content}, $chat->{reply}, "$what: the reply");
    }
    is($c->{choices}[0]{finish_reason}, $chat->{stopped} ? 'stop' : 'length', "$what: the end");
    my $ids = $t->decode($t->post('/v1/completions',
        { %greedy, prompt => $chat->{prompt_ids} })->{body});
    is($ids->{choices}[0]{text}, $c->{choices}[0]{message}{content},
        "$what: the same from the template's ids");
}

# what it is for
sub ask {
    my ($question, %more) = @_;
    my $r = $t->post('/v1/chat/completions', { %greedy, %more,
        messages => [{ role => 'user', content => $question }] });
    return $t->decode($r->{body})->{choices}[0]{message}{content};
}
like(ask('What are you?'), qr/ngx-llm-demo/, 'it says what it is');
like(ask('Where do I find the metrics?'), qr{/metrics}, 'it knows the server');
like(ask('How do I add a key?'), qr{conf/llm-key add}, 'and its keys');
like(ask('What is 27 + 48?'), qr/= 75\.$/, 'it adds');
is(ask('Sort: pear, apple, fig'), 'In order: apple, fig, pear', 'it sorts');
like(ask('Tell me a short story.'), qr/^Once upon a time .* The end\.$/, 'it tells a story');
my $person = eval { $t->decode(ask('Give me a person as JSON.')) };
is(join(' ', sort keys %{ $person // {} }), 'age city name', 'it fills JSON');

# a chat that grows until the context is full: refused by then, and not before
my @messages;
my ($turns, $r) = (0);
while ($turns < 60) {
    push @messages, { role => 'user', content => 'Tell me a story about a fox.' };
    $r = $t->post('/v1/chat/completions', { %greedy, messages => \@messages });
    last if $r->{status} != 200;
    my $c = $t->decode($r->{body});
    last if $c->{usage}{total_tokens} > 1024;
    push @messages, $c->{choices}[0]{message};
    $turns++;
}
cmp_ok($turns, '>=', 5, "$turns stories fit");
is($r->{status}, 400, 'then it is too long');
is($t->decode($r->{body})->{error}{code}, 'context_length_exceeded', 'which the error says');

$t->done;

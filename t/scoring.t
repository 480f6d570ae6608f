#!/usr/bin/env perl
# Catches: logprobs of a prompt that are not the reference's, depend on how the
# prompt was cut into steps, belong to other tokens, or come twice; a prompt
# that is scored and charged as if something had been sampled; memory that
# grows with the prompt.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $dir = LLM->data . '/models/TinyStories-656K';
plan skip_all => 'no test data (LLM_DATA)' if !-f "$dir/config.json";
my $golden = LLM->decode(LLM::_slurp("$dir/TinyStories-656K.golden.json"))->{nll};
my @ids = @{ $golden->{ids} };
my ($true, $false) = (JSON::PP::true, JSON::PP::false);
my @engine = ('--model', $dir, '--model_name', 'm', qw(--kv_type f32 --context 512));

my $t = LLM->new(engine => \@engine);
my %score = (model => 'm', prompt => \@ids, echo => $true, logprobs => 2, max_tokens => 0, temperature => 0);

sub ask {
    my (%q) = @_;
    my $r = $t->post('/v1/completions', \%q);
    return ($r, eval { LLM->decode($r->{body}) } // {});
}

# --- the reference -----------------------------------------------------------------

my ($r, $d) = ask(%score);
is($r->{status}, 200, 'scored') or diag($r->{body});
my $c = $d->{choices}[0];
my $l = $c->{logprobs};
is(scalar @{ $l->{$_} }, scalar @ids, "$_ of each token")
    for qw(tokens token_logprobs top_logprobs text_offset);
ok(!defined $l->{token_logprobs}[0] && !defined $l->{top_logprobs}[0], 'none of the first');
my $off = 0;
for (1 .. $#ids) {
    my $e = abs($l->{token_logprobs}[$_] - $golden->{token_logprobs}[$_ - 1]);
    $off = $e if $e > $off;
}
cmp_ok($off, '<', 1e-4, sprintf '%d logprobs as the reference has them, %.1e off at most', $#ids, $off);
is($c->{text}, $golden->{text}, 'the text');
is(join('', @{ $l->{tokens} }) =~ s/^ //r, $golden->{text}, 'token by token');
is($d->{usage}{completion_tokens}, 0, 'nothing sampled');
is($c->{finish_reason}, 'length', 'and over');

# --- however it is cut ---------------------------------------------------------------

my $whole = LLM->encode($l);
for my $cut (['--batch_tokens', 7], ['--batch_tokens', 1, '--batch_rows', 1],
    ['--batch_tokens', 33, '--batch_rows', 2])
{
    $t->stop(engine => 'TERM');
    $t->start_engine(@$cut);
    $t->wait_ready;
    is(LLM->encode((ask(%score))[1]{choices}[0]{logprobs}), $whole, "the same with @$cut");
}
$t->stop(engine => 'TERM');
$t->start_engine(qw(--batch_tokens 96 --batch_rows 2));
$t->wait_ready;

# beside others, of which some sample: nobody loses a token
my @s = map { $t->stream('/v1/completions', { model => 'm', prompt => 'Once', max_tokens => 60,
    temperature => 0, ignore_eos => $true }) } 1 .. 3;
is(LLM->encode((ask(%score))[1]{choices}[0]{logprobs}), $whole, 'the same beside others');
my %texts = map { $_->text(0, 20) => 1 } @s;
is(scalar keys %texts, 1, 'and theirs is what it was');
ok($t->pool_is_full, 'at rest');

# --- with an answer behind it ----------------------------------------------------------

my @short = @ids[0 .. 19];
my %more = (%score, prompt => \@short, max_tokens => 5, logprobs => 1);
($r, $d) = ask(%more);
my $one = $d->{choices}[0]{logprobs};
is(scalar @{ $one->{tokens} }, 25, 'prompt and answer');
is_deeply([@{ $one->{token_logprobs} }[0 .. 19]], [@{ $l->{token_logprobs} }[0 .. 19]], "the prompt's");
($r, $d) = ask(%more, echo => $false);
is_deeply($d->{choices}[0]{logprobs}{token_logprobs}, [@{ $one->{token_logprobs} }[20 .. 24]], "the answer's");
my $n = (ask(%more, n => 2, stop => ['Once']))[1];
is_deeply([map { $_->{logprobs} } @{ $n->{choices} }], [$one, $one], 'two of it, no stop string in a prompt');

my $stream = $t->stream('/v1/completions', { %more, stream => $true });
my (%got, $text);
while (defined(my $e = $stream->next_event(20))) {
    last if $e eq '[DONE]';
    for (@{ LLM->decode($e)->{choices} }) {
        $text .= $_->{text};
        my $p = $_->{logprobs} or next;
        push @{ $got{$_} }, @{ $p->{$_} } for keys %$p;
    }
}
is_deeply(\%got, $one, 'streamed');

# one token has nothing before it; several prompts at once
($r, $d) = ask(%score, prompt => [[@ids[0 .. 2]], [$ids[0]], [@ids[0 .. 5]]]);
is(join(' ', map { scalar @{ $_->{logprobs}{tokens} } } @{ $d->{choices} }), '3 1 6', 'several prompts');
ok(!defined $d->{choices}[1]{logprobs}{token_logprobs}[0], 'one of one token');

# --- as vLLM has it ------------------------------------------------------------------------

($r, $d) = ask(model => 'm', prompt => \@short, prompt_logprobs => 2, max_tokens => 2, temperature => 0);
my $p = $d->{choices}[0]{prompt_logprobs};
is(scalar @$p, 20, 'prompt_logprobs');
ok(!defined $p->[0], 'none of the first');
is(join(' ', map { $p->[$_]{ $ids[$_] }{logprob} } 1 .. 19),
    join(' ', map { $l->{token_logprobs}[$_] } 1 .. 19), 'by the ids');
my ($best) = grep { ($p->[3]{$_}{rank} // 9) == 1 } keys %{ $p->[3] };
is($p->[3]{$best}{logprob}, (sort { $b <=> $a } map { $_->{logprob} } values %{ $p->[3] })[0], 'ranks');
ok(!defined $d->{choices}[0]{logprobs}, 'and none of the answer');
unlike($d->{choices}[0]{text}, qr/^Once/, 'and no echo');
my $chat = LLM->decode($t->post('/v1/chat/completions', { model => 'm', prompt_logprobs => 0, max_tokens => 2,
    n => 2, messages => [{ role => 'user', content => 'Once upon' }] })->{body});
is(scalar @{ $chat->{prompt_logprobs} }, $chat->{usage}{prompt_tokens}, 'of a conversation');

for ([max_tokens => 0], [max_tokens => 0, echo => $false], [prompt_logprobs => 21],
    [prompt_logprobs => 1, stream => $true], [prompt_logprobs => 2, echo => $true, logprobs => 1])
{
    my %q = (model => 'm', prompt => 'a', @$_);
    is((ask(%q))[0]{status}, 400, 'refused: ' . LLM->encode({ @$_ }));
}

$t->done;
